"""Tables of mixed columns, against scikit-learn's transformers, and what is said to rows that do not fit."""

import dataclasses
import datetime
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pandas
import pyarrow
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import jaxnets as jn
from jaxnets.data.tables.columns import DATE_PARTS, Categories, Numbers

ROWS = 60


def mixed(rows: int = ROWS, *, seed: int = 0) -> pandas.DataFrame:
    """Return a table of all kinds of columns, with missing values."""
    generator = np.random.default_rng(seed)
    age, income = 40 + 10 * generator.standard_normal(rows), 1e6 + 1000 * generator.standard_normal(rows)
    age[generator.random(rows) < 0.2] = np.nan
    color = generator.choice(np.array(["red", "blue", "green"], object), rows)
    color[generator.random(rows) < 0.2] = None
    born = np.datetime64("1970-03-01") + generator.integers(0, 20_000, rows).astype("timedelta64[D]")
    return pandas.DataFrame(
        {
            "age": age,
            "color": color,
            "income": income,
            "city": generator.choice(["Kiel", "Ulm"], rows),
            "born": born.astype("datetime64[s]"),
            "member": generator.random(rows) < 0.5,
            "rooms": generator.integers(1, 6, rows),
            "bought": generator.choice(["yes", "no"], rows),
            "price": generator.standard_normal(rows) * 100 + 1000,
        }
    )


@pytest.mark.parametrize("missing", ["mean", "median"])
def test_values_are_scikit_learns(missing: Any):
    table = mixed()
    parts = jn.data.table(table, "bought", missing=missing, seed=3, drop=["price"])
    train, held_out = (table.iloc[rows] for rows in parts.rows)
    number = make_pipeline(SimpleImputer(strategy=missing), StandardScaler())
    days = FunctionTransformer(lambda x: (x - pandas.Timestamp("1970-01-01")) / pandas.Timedelta(days=1))
    month, weekday = (
        FunctionTransformer(lambda x, part=part: x.apply(lambda column: getattr(column.dt, part)))
        for part in ("month", "weekday")
    )
    text: Any = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    theirs: Any = ColumnTransformer(
        [
            ("age", number, ["age"]),
            ("age missing", MissingIndicator(), ["age"]),
            ("color", text, ["color"]),
            ("income", StandardScaler(), ["income"]),
            ("city", text, ["city"]),
            ("born days", make_pipeline(days, StandardScaler()), ["born"]),
            ("born month", make_pipeline(month, StandardScaler()), ["born"]),
            ("born weekday", make_pipeline(weekday, StandardScaler()), ["born"]),
            ("member", "passthrough", ["member"]),
            ("rooms", StandardScaler(), ["rooms"]),
        ]
    ).fit(train)
    assert parts.validation is not None
    for (x, y), rows in ((parts.train, train), (parts.validation, held_out)):
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(x, theirs.transform(rows).astype(float), rtol=1e-6, atol=1e-6)
        assert np.array(["no", "yes"])[y].tolist() == rows["bought"].tolist()
    later = mixed(9, seed=1).drop(columns=["bought", "price"])
    later.loc[0, "color"] = "violet"
    np.testing.assert_allclose(parts.encoder(later), theirs.transform(later).astype(float), rtol=1e-6, atol=1e-6)
    assert parts.encoder.columns == (
        *("age", "age missing", "color=blue", "color=green", "color=red", "color missing", "income", "city=Kiel"),
        *("city=Ulm", "born days", "born month", "born weekday", "member", "rooms"),
    )


class Frame:
    """What a data frame of polars shows of itself."""

    def __init__(self, table: pandas.DataFrame) -> None:
        self.table, self.columns = table, list(table.columns)

    def __getitem__(self, name: str) -> Any:
        return self.table[name]


def dates_as_text(table: pandas.DataFrame) -> pandas.DataFrame:
    return table.assign(born=table["born"].dt.strftime("%Y-%m-%d"))


def polars(table: pandas.DataFrame) -> Any:
    return importlib.import_module("polars").from_pandas(table)


def parquet(table: pandas.DataFrame) -> str:
    table.to_parquet("table.parquet")
    return "table.parquet"


def csv(table: pandas.DataFrame) -> Path:
    table.to_csv("table.csv.gz", index=False)
    return Path("table.csv.gz")


HELD: dict[str, Callable[[pandas.DataFrame], Any]] = {
    "a data frame": lambda table: table,
    "nullable types": lambda table: table.convert_dtypes(),
    "categorical": lambda table: table.astype({"color": "category", "city": "category"}),
    "time zones": lambda table: table.assign(born=table["born"].dt.tz_localize("UTC")),
    "dates as text": dates_as_text,
    "another frame": Frame,
    "pyarrow": pyarrow.Table.from_pandas,
    "columns": lambda table: {name: table[name].tolist() for name in table},
    "rows": lambda table: table.to_dict("records"),
    "CSV": csv,
    "Parquet": parquet,
} | ({"polars": polars} if importlib.util.find_spec("polars") else {})


@pytest.mark.parametrize("kind", HELD)
def test_a_table_is_the_same_however_it_is_held(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    given = HELD[kind](mixed())
    want, parts = jn.data.table(mixed(), "bought"), jn.data.table(given, "bought")
    jax.tree.map(np.testing.assert_array_equal, (parts.train, parts.validation), (want.train, want.validation))
    np.testing.assert_array_equal(want.encoder(given)[parts.rows[0]], want.train[0])


def test_statistics_and_categories_are_of_the_training_part_alone():
    table = mixed()
    parts = jn.data.table(table, "bought", split=(0.6, 0.2, 0.2), seed=1)
    changed = table.copy()
    for rows in parts.rows[1:]:
        changed.loc[rows, ["age", "income"]] = 1e9
        changed.loc[rows, "color"] = "black"
        changed.loc[rows, "born"] = pandas.Timestamp("2400-01-01")
    other = jn.data.table(changed, "bought", split=(0.6, 0.2, 0.2), seed=1)
    np.testing.assert_array_equal(parts.train[0], other.train[0])
    assert dataclasses.astuple(parts.encoder) == dataclasses.astuple(other.encoder)
    assert [len(rows) for rows in parts.rows] == [36, 12, 12]
    assert sorted(np.concatenate(parts.rows).tolist()) == list(range(ROWS))
    assert parts.test is not None
    assert other.test is not None
    assert len(parts.test[1]) == 12
    # The unknown color is zero in each of its features.
    assert other.test[0][:, [other.encoder.columns.index(f"color={color}") for color in ("blue", "red")]].max() == 0


def test_groups_keep_their_part():
    table = mixed()
    rows = jn.data.split_groups(table["rooms"], (0.5, 0.5))
    parts = jn.data.table(table, "price", split=rows, drop=["bought"])
    for (_, y), mine in zip((parts.train, parts.validation or parts.train), rows, strict=True):
        np.testing.assert_allclose(y, table["price"].to_numpy()[mine], rtol=1e-6)


def test_categories_as_codes():
    table = mixed()
    parts = jn.data.table(table, "bought", one_hot=False, split=None, kinds={"rooms": "category"}, drop=["price"])
    x = parts.train[0]
    assert (x["numbers"].shape, x["categories"].shape) == ((ROWS, 7), (ROWS, 3))
    assert x["categories"].dtype == np.int32
    assert parts.encoder.sizes == {"color": 5, "city": 4, "rooms": 7}
    names = [["blue", "green", "red", None], ["Kiel", "Ulm"], [1, 2, 3, 4, 5]]
    for column, (name, known) in zip(x["categories"].T, zip(("color", "city", "rooms"), names), strict=True):
        assert [known[code] for code in column] == [None if value != value else value for value in table[name]]
    strange = parts.encoder(table[:2].assign(color=["pink", None], rooms=[9, 1]))
    assert isinstance(strange, dict)
    assert strange["categories"][:, [0, 2]].tolist() == [[4, 6], [3, 0]]
    joined = jn.data.table(table, "bought", split=None, kinds={"rooms": "category"}, drop=["price"])
    numbers = [name for name in joined.encoder.columns if name in parts.encoder.columns]
    assert numbers == list(parts.encoder.columns[:7])
    places = [joined.encoder.columns.index(name) for name in numbers]
    np.testing.assert_array_equal(x["numbers"], joined.train[0][:, places])


def test_rare_categories_are_unknown():
    color = ["red"] * 5 + ["blue"] * 4 + ["pink"]
    parts = jn.data.table({"color": color, "y": [0, 1] * 5}, "y", split=None, min_count=2, one_hot=False)
    assert parts.train[0]["categories"][:, 0].tolist() == [1] * 5 + [0] * 4 + [3]


def test_parts_of_dates_are_pythons():
    generator = np.random.default_rng(0)
    seconds = generator.integers(-3 * 10**9, 4 * 10**9, 200)
    dates = [datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(each)) for each in seconds]
    parts = jn.data.table(
        {"when": dates, "y": [0.5, 1.5] * 100}, "y", split=None, date_parts=list(DATE_PARTS), standardize=False
    )
    want = [
        [
            (each - datetime.datetime(1970, 1, 1)).total_seconds() / 86400,
            *(each.year, each.month, each.day, each.timetuple().tm_yday, each.weekday(), each.hour),
        ]
        for each in dates
    ]
    np.testing.assert_allclose(parts.train[0], want, rtol=1e-6)


def test_a_regression_is_standardized_and_undone():
    table = mixed()
    plain = jn.data.table(table, "price", drop="bought")
    assert plain.train[1].dtype == np.float32
    np.testing.assert_allclose(plain.train[1], table["price"].to_numpy()[plain.rows[0]], rtol=1e-6)
    assert plain.encoder.decode([[1.5]]).tolist() == [[1.5]]
    parts = jn.data.table(table, "price", drop="bought", standardize_target=True)
    np.testing.assert_allclose([parts.train[1].mean(), parts.train[1].std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(parts.encoder.decode(parts.train[1]), plain.train[1], rtol=1e-6)
    x, y = parts.encoder.examples(table)
    np.testing.assert_array_equal(x[parts.rows[1]], parts.validation[0] if parts.validation else ())
    np.testing.assert_allclose(parts.encoder.decode(y), table["price"], rtol=1e-6)


@pytest.mark.promotes
@pytest.mark.parametrize("one_hot", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_names_are_kept_to_the_end(one_hot: bool):
    table = mixed(200)
    table["bought"] = np.where((table["color"] == "red") | (table["city"] == "Ulm"), "yes", "no")
    parts = jn.data.table(table, "bought", one_hot=one_hot)
    layers = {} if one_hot else {"columns": jn.embed_columns(parts.encoder.sizes, 4)}
    net = jn.serial(**layers, hidden=jn.dense(16), relu=jax.nn.relu, out=jn.dense(2))
    matrix = jn.metrics.confusion_matrix(2)
    state, _ = jn.fit(
        *(net, jn.losses.cross_entropy, optax.adam(0.01), parts.train), epochs=30, batch_size=32, key=jax.random.key(0)
    )
    found = parts.encoder.decode(jn.predict(net, state, parts.encoder(table)))
    assert (found == table["bought"]).mean() > 0.95
    counts = jn.evaluate(net, state, parts.validation, matrix, jn.losses.cross_entropy)["confusion_matrix"]
    figure = jn.plot.confusion(counts, parts.encoder.classes)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["no", "yes"]


def test_fields_are_values_for_a_file():
    """Numbers, texts, arrays, and tuples and records of these: what `jn.save` can write."""

    def check(value: Any) -> None:
        if dataclasses.is_dataclass(value):
            assert callable(value)
            for each in dataclasses.fields(value):
                check(getattr(value, each.name))
        elif isinstance(value, tuple):
            for each in value:
                check(each)
        else:
            assert value is None or type(value) in (str, int, float, bool, np.ndarray), type(value)

    for target in ("bought", "price"):
        options: Any = {"standardize_target": True} if target == "price" else {}
        check(jn.data.table(mixed(), target, one_hot=False, kinds={"rooms": "category"}, **options).encoder)


ENCODER = jn.data.table(mixed(), "bought", split=None, unknown="error", kinds={"rooms": "category"}).encoder


def wrong(change: Callable[[pandas.DataFrame], Any], target: str = "bought", **options: Any) -> Callable[[], Any]:
    return lambda: jn.data.table(change(mixed()), target, **options)


def used(change: Callable[[pandas.DataFrame], Any]) -> Callable[[], Any]:
    return lambda: ENCODER(change(mixed()))


def same(table: pandas.DataFrame) -> pandas.DataFrame:
    return table


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a column renamed": (
        used(lambda table: table.rename(columns={"income": "Income"})),
        r"TableEncoder expects the column income, got 'age', .*; rename 'Income'",
    ),
    "columns missing": (
        used(lambda table: table.drop(columns=["age", "born"])),
        r"expects the columns age, born, got 'color', .*; give it, with None for missing values",
    ),
    "two columns of one name": (
        lambda: jn.data.table({1: [1, 2], "1": [3, 4], "y": ["a", "b"]}, "y", split=None),
        "expects columns of different names, got '1' twice",
    ),
    "integers that float64 confuses": (
        lambda: jn.data.table({"id": [2**60, 2**60 + 1], "y": [0, 1]}, "y", split=None, kinds={"id": "category"}),
        r"can't tell integers above 2\*\*53 apart in the column 'id', got 1152921504606846976; .*str",
    ),
    "classes that float64 confuses": (
        lambda: jn.data.table({"x": [1, 2], "y": [2**60, 2**60 + 1]}, "y", split=None),
        r"can't tell integers above 2\*\*53 apart in the column 'y'",
    ),
    "text for numbers": (
        used(lambda table: table.assign(age="41 years")),
        r"expects numbers in the column 'age', got text, '41 years' in row 0; convert it",
    ),
    "numbers for text": (
        used(lambda table: table.assign(city=7)),
        r"expects text in the column 'city', as in training, got 7 in row 0; convert it, \.astype\(str\)",
    ),
    "text for the numbers of categories": (
        used(lambda table: table.assign(rooms="2")),
        r"expects numbers or booleans in the column 'rooms', as in training, got '2' in row 0",
    ),
    "numbers for dates": (
        used(lambda table: table.assign(born=1990)),
        r"expects dates in the column 'born', got numbers, 1990 in row 0",
    ),
    "a date in another order": (
        used(lambda table: table.assign(born="31.12.1990")),
        r"expects dates such as 2024-02-29 in the column 'born', got '31.12.1990' in row 0; pandas.to_datetime",
    ),
    "an unknown category": (
        used(lambda table: table.assign(city=["Kiel"] * 59 + ["Bonn"])),
        r"finds the category 'Bonn' in row 59 of the column 'city', which training does not have; unknown=\"own\"",
    ),
    "a missing category": (
        used(lambda table: table.assign(city=[None] + ["Ulm"] * 59)),
        r"finds a missing value in row 0 of the column 'city', which training does not have",
    ),
    "infinity": (
        used(lambda table: table.assign(income=np.inf)),
        r"expects finite numbers in the column 'income', got inf in row 0",
    ),
    "one row as a dict": (lambda: ENCODER({"age": 3}), r"got single values; put the row in a list, \[row\]"),
    "columns of unequal length": (lambda: ENCODER({"age": [1], "city": ["Ulm"] * 2}), r"one length, got {'age': 1, 'c"),
    "an array": (wrong(lambda table: table[["age"]].to_numpy()), r"expects a data frame, .*, got ndarray \(60, 1\)"),
    "no rows": (wrong(lambda table: table[:0]), r"expects a table with at least one column and one row, got none"),
    "a column twice": (
        wrong(lambda table: table.rename(columns={"age": "rooms"})),
        r"expects columns of different names, got 'rooms' twice",
    ),
    "a file of another kind": (wrong(lambda table: "table.xlsx"), r"expects a file named \.csv, \.tsv or \.parquet"),
    "no such column": (wrong(same, "sold"), r"table finds no column 'sold', but 'age', 'color', .*"),
    "a target misspelled": (wrong(same, "bougth"), r"finds no column 'bougth', .*; did you mean 'bought'\?"),
    "semicolons": (
        wrong(lambda table: {"age;bought": ["1;a", "2;b"]}),
        r"finds no column 'bought', but 'age;bought'; read it by pandas\.read_csv\(file, sep=';'\)",
    ),
    "no such column to drop": (wrong(same, drop=["id"]), r"finds no column 'id', but 'age'"),
    "the target dropped": (wrong(same, drop="bought"), r"expects other columns in drop than the target 'bought'"),
    "mixed types": (
        wrong(lambda table: table.assign(rooms=["many", 2] * 30)),
        r"finds text such as 'many' and numbers such as 2 in the column 'rooms'; convert it to one type",
    ),
    "lists in a column": (
        wrong(lambda table: table.assign(rooms=[[1, 2]] * 60)),
        r"expects numbers, text, booleans or dates in the column 'rooms', got list \[1, 2\]; .* drop=",
    ),
    "an empty column": (
        wrong(lambda table: table.assign(age=np.nan)),
        r"finds no values in the column 'age' in training; leave it out, drop=\['age'\]",
    ),
    "names": (
        wrong(lambda table: table.assign(name=[f"n{row}" for row in range(60)])),
        r"finds another text in each row of the column 'name', 'n0' in row 0; leave it out, drop=\['name'\]",
    ),
    "a target with gaps": (
        wrong(same, "color"),
        r"finds \d+ missing values in the target 'color', the first in row \d+; leave such rows out, table\.dropna",
    ),
    "many integers": (
        wrong(lambda table: pandas.DataFrame({"x": range(200), "y": range(200)}), "y"),
        r"finds 200 different integers in the target 'y'; classes=False predicts a number, classes=True a class",
    ),
    "a date to predict": (wrong(same, "born"), r"expects classes or numbers as the target 'born', got dates"),
    "text as a number": (wrong(same, classes=False), r"expects numbers in the target 'bought', got text, '"),
    "classes standardized": (
        wrong(same, standardize_target=True),
        r"standardizes numbers, but the target 'bought' has",
    ),
    "only a target": (wrong(lambda table: table[["bought"]]), r"expects a column beside the target 'bought'"),
    "an option": (wrong(same, missing="zero"), r"expects missing from 'mean', 'median', got 'zero'"),
    "a part of a date": (wrong(same, date_parts=["week"]), r"expects date_parts from 'days', .*, got 'week'"),
    "a kind": (wrong(same, kinds={"age": "text"}), r"expects kinds from 'number', .*, got 'text'"),
    "one fraction": (wrong(same, split=0.8), r"expects split as one to three fractions, .* got float 0\.8"),
    "overlapping rows": (wrong(same, split=[[1, 2], [2]]), r"expects row numbers in split that are disjoint"),
    "no category left": (wrong(same, min_count=100), r"finds no category in the column 'color' with min_count=100"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str):
    mistake, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        mistake()


def test_absent_files_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.csv"):
        jn.data.table(tmp_path / "absent.csv", "y")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(jn.NetError, match=r"can't read .*empty\.csv"):
        jn.data.table(tmp_path / "empty.csv", "y")
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[tables\]'"):
        jn.data.table(tmp_path / "empty.csv", "y")


def test_labels_and_back():
    names = jn.data.labels(pandas.Series(["b", "a", "c", "a"], dtype="category"))
    assert names.classes == ("a", "b", "c")
    codes = names.encode(np.array(["c", "a"]))
    assert (codes.dtype, codes.tolist(), names(["b"]).tolist()) == (np.int32, [2, 0], [1])
    assert names.decode(codes).tolist() == ["c", "a"]
    assert names.decode([[[0.1, 0.9, 0.3]]]).tolist() == [["b"]]
    assert names.decode(jax.numpy.array([[1.0, 3.0, 2.0]], "bfloat16")).tolist() == ["b"]
    pair = jn.data.labels([True, False])
    assert pair.decode(np.array([[-1.0], [2.0]])).tolist() == [False, True]
    assert jn.data.labels([30, 10, 20]).encode([10.0, 30.0]).tolist() == [0, 2]


def test_numbers_that_pandas_holds_as_categories():
    held = pandas.DataFrame({"rooms": pandas.Categorical([3, 1, 3, 1], categories=[3, 1]), "y": list("abab")})
    encoder = jn.data.table(held, "y", split=None).encoder
    assert encoder.columns == ("rooms=1", "rooms=3")
    assert encoder({"rooms": [3, 1]}).tolist() == encoder(held[:2]).tolist() == [[0, 1], [1, 0]]


LABELS = jn.data.labels(["a", "b", "c"])
WRONG_LABELS: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown": (lambda: LABELS.encode(["a", "d"]), r"expects one of the classes 'a', 'b', 'c', got 'd' in row 1"),
    "missing": (lambda: jn.data.labels(["a", None]), r"finds a missing label in row 1"),
    "of two types": (lambda: jn.data.labels(["a", 1]), r"labels expects names of one type, got int and str"),
    "none": (lambda: jn.data.labels([]), r"expects the class of at least one example"),
    "one text": (lambda: LABELS.encode("a"), r"expects the class of each example, \(examples,\), got str 'a'"),
    "lists": (lambda: jn.data.labels([[1], [1, 2]]), r"expects texts or numbers as labels, got list \[1\] in row 0"),
    "a number too large": (lambda: LABELS.decode([0, 3]), r"expects class numbers from 0 to 2, got 3"),
    "other outputs": (lambda: LABELS.decode([[0.1, 0.2]]), r"expects outputs \(\.\.\., 3\), one for each class"),
    "NaN": (lambda: LABELS.decode([[np.nan, 0.2, 0.1]]), r"expects outputs of a network, got NaN"),
    "one or two examples": (lambda: jn.data.labels(["a", "b"]).decode([0.1, 0.2]), r"can't tell scores of two classes"),
    "twice": (lambda: jn.data.Labels(("a", "a")), r"expects distinct names of classes"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_wrong_labels_are_named(name: str):
    mistake, message = WRONG_LABELS[name]
    with pytest.raises(jn.NetError, match=message):
        mistake()


def test_vectors_of_columns_are_those_of_each_alone():
    net = jn.embed_columns({"a": 4, "b": 30}, {"a": 2, "b": 3})
    x = {"numbers": np.ones((3, 2), np.float32), "categories": np.array([[0, 29], [3, 0], [1, 1]], np.int32)}
    params, state = net.init(jax.random.key(0), x)
    y = jax.jit(net.apply)(params, state, x)[0]
    a, b = (np.asarray(params[name]["embedding"])[codes] for name, codes in zip("ab", x["categories"].T))
    np.testing.assert_array_equal(y, np.concatenate([x["numbers"], a, b], 1))
    gradient = jax.grad(lambda params: net.apply(params, state, x)[0].sum())(params)
    assert gradient["a"]["embedding"].tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]
    assert 0 < np.abs(np.asarray(params["b"]["embedding"])).max() < 0.1


def test_columns_alone_are_functions_of_lists():
    assert Numbers("day", "date", ("weekday",), (0.0,), (0.0,), (1.0,), False)(["2024-02-29"]).tolist() == [[3.0]]
    assert Categories("ok", (False, True), False, "own")([True, None, False]).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("form", "hint"),
    [("{},5", r"decimal=','"), ("{:02d}/10/2024", r"pandas\.to_datetime"), ("n{}", r"drop=\['z'\]")],
)
def test_columns_of_mostly_different_texts_warn(form: str, hint: str):
    rows = {"z": [form.format(max(row, 10)) for row in range(30)], "y": ["a", "b"] * 15}
    with pytest.warns(UserWarning, match=rf"20 different texts in 30 rows of the column 'z', .*{hint}"):
        jn.data.table(rows, target="y", split=None)
    rows["z"] = [form.format(row % 15) for row in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jn.data.table(rows, target="y", split=None)

"""ResNets. Multiply-adds of version 1: those of 1.5 less 231,211,008, as three 1×1 run at half the height and width.

For stage k = 2, 3, 4 that is (1 - 1/4) · (112 / 2^(k-1))² · 64 · 2^k · 64 · 2^(k-1), each 77,070,336.
"""

import jaxnets as jn
from tests.models.row import Row, image

models = jn.models
V1 = 3 * 77_070_336

ROWS = [
    Row("resnet18", models.resnet18, image(), 11_689_512, 1_814_073_344),
    Row("resnet34", models.resnet34, image(), 21_797_672, 3_663_761_408),
    Row("resnet50", models.resnet50, image(), 25_557_032, 4_089_184_256),
    Row("resnet101", models.resnet101, image(), 44_549_160, 7_801_405_440),
    Row("resnet152", models.resnet152, image(), 60_192_808, 11_513_626_624),
    Row("resnet50_v1", lambda: models.resnet50(version="1"), image(), 25_557_032, 4_089_184_256 - V1),
    Row("resnet101_v1", lambda: models.resnet101(version="1"), image(), 44_549_160, 7_801_405_440 - V1),
    Row("resnet152_v1", lambda: models.resnet152(version="1"), image(), 60_192_808, 11_513_626_624 - V1),
    Row("resnext50_32x4d", models.resnext50_32x4d, image(), 25_028_904, 4_230_479_872),
    Row("resnext101_32x8d", models.resnext101_32x8d, image(), 88_791_336, 16_414_015_488),
    Row("resnext101_64x4d", models.resnext101_64x4d, image(), 83_455_272, 15_460_270_080),
    Row("wide_resnet50_2", models.wide_resnet50_2, image(), 68_883_240, 11_398_021_120),
    Row("wide_resnet101_2", models.wide_resnet101_2, image(), 126_886_696, 22_753_050_624),
    # timm's resnetv2_18 and so on; the convolutions are those of version 1.5.
    Row("resnet18_v2", models.resnet18_v2, image(), 11_687_720, 1_814_073_344),
    Row("resnet34_v2", models.resnet34_v2, image(), 21_795_880, 3_663_761_408),
    Row("resnet50_v2", models.resnet50_v2, image(), 25_549_352, 4_089_184_256),
    Row("resnet101_v2", models.resnet101_v2, image(), 44_541_480, 7_801_405_440),
    Row("resnet152_v2", models.resnet152_v2, image(), 60_185_128, 11_513_626_624),
    # Scanned stages have the same counts.
    Row("resnet152_scan", lambda: models.resnet152(scan=True), image(), 60_192_808, 11_513_626_624),
    Row("resnet152_v2_scan", lambda: models.resnet152_v2(scan=True), image(), 60_185_128, 11_513_626_624),
    # One channel: conv1 has 2 · 7 · 7 · 64 fewer weights; ten classes: fc has 990 · 513 fewer.
    Row("resnet18_gray_10", lambda: models.resnet18(10), image(64, 1), 11_689_512 - 6_272 - 507_870),
    Row("resnet_cifar_20", lambda: models.resnet_cifar(20), image(32), 269_722, 40_551_040),
    Row("resnet_cifar_32", lambda: models.resnet_cifar(32), image(32), 464_154, 68_862_592),
    Row("resnet_cifar_44", lambda: models.resnet_cifar(44), image(32), 658_586, 97_174_144),
    Row("resnet_cifar_56", lambda: models.resnet_cifar(56), image(32), 853_018, 125_485_696),
    Row("resnet_cifar_110", lambda: models.resnet_cifar(110), image(32), 1_727_962, 252_887_680),
    Row("resnet_cifar_110_scan", lambda: models.resnet_cifar(110, scan=True), image(32), 1_727_962, 252_887_680),
    # B adds two projections, 16 · 32 and 32 · 64 weights over 16² and 8² places, and their scales and biases.
    Row(
        "resnet_cifar_20_b",
        lambda: models.resnet_cifar(20, shortcut="B"),
        image(32),
        269_722 + 512 + 64 + 2_048 + 128,
        40_551_040 + 2 * 131_072,
    ),
    # C adds seven more: 3 · 16², 2 · 32² and 2 · 64² weights over 32², 16² and 8² places.
    Row(
        "resnet_cifar_20_c",
        lambda: models.resnet_cifar(20, shortcut="C"),
        image(32),
        272_474 + 3 * (256 + 32) + 2 * (1_024 + 64) + 2 * (4_096 + 128),
        40_813_184 + 7 * 262_144,
    ),
    Row("plain_cifar_20", lambda: models.plain_cifar(20), image(32), 269_722, 40_551_040),
    Row("plain_cifar_110", lambda: models.plain_cifar(110), image(32), 1_727_962, 252_887_680),
    Row("plain_cifar_56_scan", lambda: models.plain_cifar(56, scan=True), image(32), 853_018, 125_485_696),
]

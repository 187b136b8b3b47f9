"""The classic networks as PyTorch has them: torchvision's, and short ones with the names of ours."""

from collections import OrderedDict

from tests.peers import torchvision_models


def vgg_of_torchvision(hidden, num_classes):
    import torch

    with torch.device("meta"):  # no memory for the 100 million weights that are replaced
        model = torchvision_models().vgg11_bn(init_weights=False, dropout=0.0)
        model.classifier[0] = torch.nn.Linear(512 * 7 * 7, hidden)
        model.classifier[3] = torch.nn.Linear(hidden, hidden)
        model.classifier[6] = torch.nn.Linear(hidden, num_classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    return model


def alexnet_of_torchvision(hidden, num_classes):
    import torch

    with torch.device("meta"):
        model = torchvision_models().alexnet(num_classes=num_classes)
        model.classifier[1] = torch.nn.Linear(256 * 6 * 6, hidden)
        model.classifier[4] = torch.nn.Linear(hidden, hidden)
        model.classifier[6] = torch.nn.Linear(hidden, num_classes)
    return model


def alexnet_of_the_paper(hidden, num_classes, features):
    """Sections 3.1, 3.3, 3.4 and 3.5, in order, written as one PyTorch stack."""
    from torch import nn

    class LRN(nn.Module):  # the paper's formula, its α not divided by n
        def forward(self, a):
            square = nn.functional.pad(a**2, (0, 0, 0, 0, 2, 2))
            near = sum(square[:, i : i + a.shape[1]] for i in range(5))
            return a / (2 + 1e-4 * near) ** 0.75

    layers = {
        "conv1": nn.Conv2d(3, 96, 11, 4),
        "relu1": nn.ReLU(),
        "norm1": LRN(),
        "pool1": nn.MaxPool2d(3, 2),
        "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
        "relu2": nn.ReLU(),
        "norm2": LRN(),
        "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(256, 384, 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
        "relu5": nn.ReLU(),
        "pool5": nn.MaxPool2d(3, 2),
        "flatten": nn.Flatten(),
        "fc6": nn.Linear(features, hidden),
        "relu6": nn.ReLU(),
        "fc7": nn.Linear(hidden, hidden),
        "relu7": nn.ReLU(),
        "fc8": nn.Linear(hidden, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


def small_cnn_by_torch():
    from torch import nn

    def stage(place, channels, width, pool):
        block = {
            f"conv{place}": nn.Conv2d(channels, width, 3, padding=1, bias=False),
            f"bn{place}": nn.BatchNorm2d(width),
            f"act{place}": nn.Tanh(),
        }
        return block | ({pool: nn.MaxPool2d(2)} if pool else {})

    features = stage(1, 2, 4, "") | stage(2, 4, 4, "pool1") | stage(3, 4, 6, "") | stage(4, 6, 6, "pool2")
    head = {"flatten": nn.Flatten(), "fc1": nn.Linear(36, 5), "act1": nn.Tanh(), "fc2": nn.Linear(5, 3)}
    parts = {"features": features, "classifier": head}
    return nn.Sequential(OrderedDict((name, nn.Sequential(OrderedDict(part))) for name, part in parts.items()))


def mlp_by_torch():
    from torch import nn

    layers = {"flatten": nn.Flatten()}
    for place, (width, more) in enumerate([(6, 7), (7, 5)], start=1):
        layers |= {f"fc{place}": nn.Linear(width, more), f"norm{place}": nn.BatchNorm1d(more), f"act{place}": nn.ReLU()}
    return nn.Sequential(OrderedDict(layers, fc3=nn.Linear(5, 3)))

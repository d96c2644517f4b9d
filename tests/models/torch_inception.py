"""FID's Inception in PyTorch, written from the published graph, independently of ours."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Unit(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Chains of units over one input, concatenated; a chain may end in a fork."""

    def __init__(self, units, chains, pools):
        super().__init__()
        for name, unit in units.items():
            self.add_module(name, Unit(*unit))
        self.chains, self.pools = chains, pools

    def forward(self, x):
        outputs = []
        for start, chain in self.chains:
            y = self.pools[start](x) if start else x
            for link in chain:
                if isinstance(link, tuple):
                    y = torch.cat([getattr(self, name)(y) for name in link], 1)
                else:
                    y = getattr(self, link)(y)
            outputs.append(y)
        return torch.cat(outputs, 1)


POOLS = {
    "average": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "halve": lambda x: F.max_pool2d(x, 3, 2),
}
ROW, COLUMN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))


def block_a(c, pool):
    units = {
        "branch1x1": (c, 64, 1),
        "branch5x5_1": (c, 48, 1),
        "branch5x5_2": (48, 64, 5, 1, 2),
        "branch3x3dbl_1": (c, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 1, 1),
        "branch_pool": (c, pool, 1),
    }
    chains = [
        (None, ["branch1x1"]),
        (None, ["branch5x5_1", "branch5x5_2"]),
        (None, ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]),
        ("average", ["branch_pool"]),
    ]
    return Branches(units, chains, POOLS)


def block_b(c):
    units = {
        "branch3x3": (c, 384, 3, 2),
        "branch3x3dbl_1": (c, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }
    chains = [
        (None, ["branch3x3"]),
        (None, ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]),
        ("halve", []),
    ]
    return Branches(units, chains, POOLS)


def block_c(c, m):
    units = {
        "branch1x1": (c, 192, 1),
        "branch7x7_1": (c, m, 1),
        "branch7x7_2": (m, m, *ROW),
        "branch7x7_3": (m, 192, *COLUMN),
        "branch7x7dbl_1": (c, m, 1),
        "branch7x7dbl_2": (m, m, *COLUMN),
        "branch7x7dbl_3": (m, m, *ROW),
        "branch7x7dbl_4": (m, m, *COLUMN),
        "branch7x7dbl_5": (m, 192, *ROW),
        "branch_pool": (c, 192, 1),
    }
    chains = [
        (None, ["branch1x1"]),
        (None, [f"branch7x7_{i}" for i in (1, 2, 3)]),
        (None, [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]),
        ("average", ["branch_pool"]),
    ]
    return Branches(units, chains, POOLS)


def block_d(c):
    units = {
        "branch3x3_1": (c, 192, 1),
        "branch3x3_2": (192, 320, 3, 2),
        "branch7x7x3_1": (c, 192, 1),
        "branch7x7x3_2": (192, 192, *ROW),
        "branch7x7x3_3": (192, 192, *COLUMN),
        "branch7x7x3_4": (192, 192, 3, 2),
    }
    chains = [
        (None, ["branch3x3_1", "branch3x3_2"]),
        (None, [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)]),
        ("halve", []),
    ]
    return Branches(units, chains, POOLS)


def block_e(c, pool):
    units = {
        "branch1x1": (c, 320, 1),
        "branch3x3_1": (c, 384, 1),
        "branch3x3_2a": (384, 384, (1, 3), 1, (0, 1)),
        "branch3x3_2b": (384, 384, (3, 1), 1, (1, 0)),
        "branch3x3dbl_1": (c, 448, 1),
        "branch3x3dbl_2": (448, 384, 3, 1, 1),
        "branch3x3dbl_3a": (384, 384, (1, 3), 1, (0, 1)),
        "branch3x3dbl_3b": (384, 384, (3, 1), 1, (1, 0)),
        "branch_pool": (c, 192, 1),
    }
    chains = [
        (None, ["branch1x1"]),
        (None, ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]),
        (None, ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]),
        (pool, ["branch_pool"]),
    ]
    return Branches(units, chains, POOLS)


class TorchInception(nn.Sequential):
    def __init__(self):
        super().__init__()
        stem = {
            "Conv2d_1a_3x3": Unit(3, 32, 3, 2),
            "Conv2d_2a_3x3": Unit(32, 32, 3),
            "Conv2d_2b_3x3": Unit(32, 64, 3, 1, 1),
            "maxpool1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Unit(64, 80, 1),
            "Conv2d_4a_3x3": Unit(80, 192, 3),
            "maxpool2": nn.MaxPool2d(3, 2),
        }
        mixed = [block_a(192, 32), block_a(256, 64), block_a(288, 64), block_b(288)]
        mixed += [block_c(768, m) for m in (128, 160, 160, 192)]
        mixed += [block_d(768), block_e(1280, "average"), block_e(2048, "max")]
        names = ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"]
        for name, module in stem.items():
            self.add_module(name, module)
        for name, module in zip(names, mixed, strict=True):
            self.add_module(f"Mixed_{name}", module)


def random_torch(seed=0):
    """Weights that keep activations near 1 through 94 layers; statistics that are not trivial."""
    torch.manual_seed(seed)
    model = TorchInception().eval()
    for module in model.modules():
        if isinstance(module, Unit):
            nn.init.kaiming_normal_(module.conv.weight)
            nn.init.uniform_(module.bn.weight, 0.8, 1.2)
            nn.init.uniform_(module.bn.bias, -0.2, 0.2)
            nn.init.uniform_(module.bn.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.bn.running_var, 0.8, 1.2)
    return model

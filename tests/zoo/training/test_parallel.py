"""A network is converted for several processes without another name, parameter or output."""

from collections.abc import Callable

import torch
from torch import nn

from zoo.danet import DANet
from zoo.training.parallel import SyncNorm


def test_synchronised_norms_share_names_parameters_and_statistics(
    tiny: Callable[..., DANet],
) -> None:
    net, x = tiny(threshold=0.5), torch.randn(3, 1, 8, 8)
    net(x)  # statistics that are not those of a new norm
    keys, parameters = list(net.state_dict()), list(net.parameters())
    logits = net.eval()(x)
    SyncNorm.convert(net.train())
    assert list(net.state_dict()) == keys
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(type(norm) is SyncNorm and norm.training for norm in norms)
    assert torch.equal(net.eval()(x), logits)


def test_a_frozen_norm_stays_in_eval_mode() -> None:
    norm = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2).eval()
    sync = SyncNorm.sharing(norm)
    assert (sync.training, sync.eps, sync.momentum) == (False, 1e-3, 0.2)
    assert sync.weight is norm.weight and sync.running_var is norm.running_var

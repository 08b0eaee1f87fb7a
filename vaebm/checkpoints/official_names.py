"""What the released code calls the weights of an NVAE and of an energy network.

Its state dicts differ from ours in the names of some parts, and in two additions: some BatchNorms are wrapped once more (``bn.``; not in
every version), and each convolution without weight normalisation has a second entry ``weight_normalized``, the same parameter again.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from vaebm.energy import EnergyNetwork, ResidualBlock
from vaebm.nvae import NVAE
from vaebm.nvae.cells import ActivatedConv, ConvBNSwish, MobileConv, ResidualCell
from vaebm.nvae.flows import Flow
from vaebm.nvae.layers import Conv2d, FactorizedReduce, SqueezeExcite, UpsampleSkip

ALIAS = "weight_normalized"


def _renamed(module: nn.Module) -> dict[str, str]:
    """Parts of a module that are called otherwise there: {path below it: theirs}."""
    match module:
        case NVAE():  # their flows are one list over all groups
            flows = module.config.flows
            groups = range(len(module.nf_cells))
            return {f"nf_cells.{g}.{f}": f"nf_cells.{g * flows + f}" for g in groups for f in range(flows)}
        case ResidualCell():
            return {"branch": "_ops"}
        case FactorizedReduce():
            return {f"convs.{i}": f"conv_{i + 1}" for i in range(len(module.convs))}
        case UpsampleSkip():
            return {"conv": "1"}
        case SqueezeExcite():
            return {"squeeze": "se.0", "excite": "se.2"}
        case ActivatedConv():
            return {"bn": "bn.bn" if module.elu else "bn_act", "conv": "conv_0"}
        case MobileConv():
            first = int(module.up)  # an upsampling layer without weights comes before the others
            parts = ("bn_in", "expand", "depthwise", "project", "bn_out")
            named = {part: f"conv.{i}" for i, part in enumerate(parts, start=first)}
            return {part: f"{theirs}.bn" if part.startswith("bn") else theirs for part, theirs in named.items()}
        case ConvBNSwish():
            return {"conv": "conv.0", "bn": "conv.1"}
        case Flow():
            return {"expand": "conv.convz.0", "depthwise": "conv.convz.2", "mu": "mu.conv_0"}
        case ResidualBlock():  # of the energy network
            return {"skip": "skip.0"}
    return {}


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _module_names(model: nn.Module) -> dict[str, str]:
    """Return {our path: theirs} for every module."""
    theirs = {"": ""}
    for path, module in model.named_modules():  # a module comes before its parts
        for part, name in _renamed(module).items():
            theirs[_join(path, part)] = _join(theirs[path], name)
        for part, _ in module.named_children():
            theirs.setdefault(_join(path, part), _join(theirs[path], part))
    return theirs


def official_names(model: NVAE | EnergyNetwork) -> dict[str, str]:
    """Return {our name: official name} for every entry of ``model.state_dict()``; the model may be on the meta device."""
    modules = _module_names(model)
    return {name: _join(modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in model.state_dict()}


def official_aliases(model: NVAE | EnergyNetwork) -> dict[str, str]:
    """Return {official name of a second entry: our name of the weight it repeats}."""
    modules = _module_names(model)
    plain = [p for p, m in model.named_modules() if isinstance(m, Conv2d) and m.log_weight_norm is None]
    return {_join(modules[path], ALIAS): _join(path, "weight") for path in plain}


_WRAPPER = re.compile(r"(_ops\.\d+\.(?:bn|conv\.\d+))\.bn\.")
_DISTRIBUTED = "module."


def canonical(name: str) -> str:
    """Return an official name as every variant of the layout would have it: without wrappers."""
    return _WRAPPER.sub(r"\1.", name.removeprefix(_DISTRIBUTED))


def canonical_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official state dict with canonical names and without repeated entries."""
    return {canonical(name): value for name, value in state.items() if not name.endswith(ALIAS)}


def our_names(model: NVAE | EnergyNetwork, names: Iterable[str]) -> dict[str, str]:
    """Return {canonical official name: our name}; a name that the model does not have stands for itself."""
    ours = {canonical(theirs): name for name, theirs in official_names(model).items()}
    return {name: ours.get(name, name) for name in names}

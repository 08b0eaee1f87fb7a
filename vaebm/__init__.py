"""VAEBM (Xiao et al., ICLR 2021): h(x, z) proportional to p_theta(x, z) exp(-E_psi(x)).

The package imports nothing heavy by itself; ask for the parts you need: ``vaebm.nvae``, ``vaebm.energy``,
``vaebm.langevin``, ``vaebm.model``, ``vaebm.training``, ``vaebm.checkpoints``, ``vaebm.data``.
"""

__version__ = "0.1.0"

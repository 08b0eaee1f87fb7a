"""NVAE: a hierarchical VAE whose latent groups live on feature maps (Vahdat & Kautz, NeurIPS 2020).

p(z) = prod_l N(z_l; mu_l(z_<l), sigma_l(z_<l)^2) over groups ordered from the coarsest scale to the finest; the posterior q(z | x) runs
bottom-up through an encoder and then top-down through the same decoder. Towers are flat lists in the order in which they are applied.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vaebm.nvae.cells import CELLS, DecoderCombiner, EncoderCombiner, ResidualCell
from vaebm.nvae.decoders import BernoulliDecoder, Decoder, GaussianDecoder, LogisticMixtureDecoder
from vaebm.nvae.distributions import Normal
from vaebm.nvae.flows import PairedFlow
from vaebm.nvae.layers import Conv2d

LIKELIHOODS = ("gaussian", "logistic_mixture", "bernoulli")


def adaptive_groups(scales: int, groups: int, minimum: int = 1) -> tuple[int, ...]:
    """Return groups per scale, coarsest first, that halve with every coarser scale but never fall below ``minimum``.

    ``adaptive_groups(3, 20)`` is (5, 10, 20): NVAE's CelebA 64 model.
    """
    found = [groups]
    while len(found) < scales:
        found.insert(0, max(minimum, found[0] // 2))
    return tuple(found)


@dataclass(frozen=True)
class NVAEConfig:
    """Everything that decides the architecture.

    Attributes:
        image_size, image_channels: images are (C, S, S).
        channels_enc, channels_dec: width at full resolution; it doubles whenever the resolution halves.
        latents_per_group: channels of each latent group.
        groups_per_scale: latent groups per scale, from the coarsest scale to the finest (see :func:`adaptive_groups`). ``(1,)`` is a
            "vanilla" VAE: one group, no towers; z enters the decoder through a single 1x1 convolution.
        preprocess_blocks, preprocess_cells: the encoder halves the resolution once per block before the finest scale.
        postprocess_blocks, postprocess_cells: the decoder doubles it once per block after the finest scale.
        cells_per_group_enc, cells_per_group_dec: residual cells between two groups.
        squeeze_excite: gates in every residual cell.
        residual_posterior: q's parameters are offsets to p's (residual distributions).
        flows: pairs of inverse autoregressive flows per posterior group.
        cells: the residual cells, a name of :data:`vaebm.nvae.cells.CELLS`.
        likelihood: p(x | z): ``"gaussian"``, ``"logistic_mixture"`` or ``"bernoulli"`` (:mod:`vaebm.nvae.decoders`).
        mixtures: components of the logistic mixture.
        bits: of the pixels that are modelled, 8 or fewer; :meth:`NVAE.quantise` brings images to them.
        border: pixels of padding on every side that the likelihood leaves out (2 for MNIST's 28x28 in 32x32).
        log_sigma_min: lower clamp of the Gaussian decoder's log sigma inside ``log_prob``; ``None`` for no clamp.
    """

    image_size: int = 32
    image_channels: int = 3
    channels_enc: int = 128
    channels_dec: int = 128
    latents_per_group: int = 20
    groups_per_scale: tuple[int, ...] = (30,)
    preprocess_blocks: int = 1
    preprocess_cells: int = 2
    postprocess_blocks: int = 1
    postprocess_cells: int = 2
    cells_per_group_enc: int = 2
    cells_per_group_dec: int = 2
    squeeze_excite: bool = True
    residual_posterior: bool = True
    flows: int = 0
    cells: str = "res_mbconv"
    likelihood: str = "gaussian"
    mixtures: int = 10
    bits: int = 8
    border: int = 0
    log_sigma_min: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups_per_scale", tuple(self.groups_per_scale))
        for name in ("image_size", "image_channels", "channels_enc", "channels_dec", "latents_per_group", "mixtures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: needed 1 or more")
        halvings = self.preprocess_blocks + len(self.groups_per_scale) - 1
        if self.image_size % 2**halvings:
            raise ValueError(f"image_size {self.image_size} cannot be halved {halvings} times")
        if self.preprocess_blocks != self.postprocess_blocks:
            raise ValueError("preprocess_blocks and postprocess_blocks must agree: they undo each other")
        if self.preprocess_blocks and min(self.preprocess_cells, self.postprocess_cells) < 1:
            found = f"preprocess_cells {self.preprocess_cells}, postprocess_cells {self.postprocess_cells}"
            raise ValueError(f"{found}: needed 1 or more, since a block's resampling is one of its cells")
        if not self.groups_per_scale or min(self.groups_per_scale) < 1:
            raise ValueError(f"groups_per_scale {list(self.groups_per_scale)}: needed at least one group per scale")
        if self.vanilla and self.channels_enc != self.channels_dec:
            raise ValueError("a single-group model needs channels_enc and channels_dec to agree")
        if self.cells not in CELLS:
            raise ValueError(f"unknown cells {self.cells!r}: needed one of {', '.join(CELLS)}")
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {self.likelihood!r}: needed one of {', '.join(LIKELIHOODS)}")
        if self.likelihood == "logistic_mixture" and self.image_channels != 3:
            raise ValueError(f"a logistic_mixture models 3 image channels, found {self.image_channels}")
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits {self.bits}: needed 1 to 8")

    @property
    def vanilla(self) -> bool:
        """Whether there is only one latent group."""
        return self.groups_per_scale == (1,)

    @property
    def decoder_channels(self) -> int:
        """Parameters of p(x | z) per pixel."""
        per_pixel = {"gaussian": 2 * self.image_channels, "logistic_mixture": 10 * self.mixtures}
        return per_pixel.get(self.likelihood, self.image_channels)

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shape (C, H, W) of every latent group, coarsest first."""
        finest = self.image_size // 2**self.preprocess_blocks
        scales = len(self.groups_per_scale)
        return [
            (self.latents_per_group, size, size)
            for scale, groups in enumerate(self.groups_per_scale)
            for size in [finest // 2 ** (scales - 1 - scale)]
            for _ in range(groups)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NVAEConfig":
        """Read a dictionary written by :meth:`to_json`; an unknown key is an error."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown NVAE settings {sorted(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class Encoded:
    """What one pass x -> q(z | x) -> p(x | z) gives.

    Attributes:
        params: raw parameters of p(x | z), (N, P, H, W).
        distribution: p(x | z).
        log_q, log_p: log q(z | x) and log p(z) at the sample, (N,), in nats.
        kl_per_group: KL per image and group in nats, (N, groups): closed form without flows, log q - log p at the sample with flows.
        z: one sample per group.
    """

    params: Tensor
    distribution: Decoder
    log_q: Tensor
    log_p: Tensor
    kl_per_group: Tensor
    z: list[Tensor]


@dataclass(frozen=True)
class Decoded:
    """What noise becomes.

    Attributes:
        params: raw parameters of p(x | z), (N, P, H, W).
        distribution: p(x | z).
        log_pz: log p(z) at the sample, (N,), in nats.
        z: one sample per group.
    """

    params: Tensor
    distribution: Decoder
    log_pz: Tensor
    z: list[Tensor]


class NVAE(nn.Module):
    """Hierarchical VAE. Images are float (N, C, H, W) in [0, 1]; noise is a list, one per group."""

    def __init__(self, config: NVAEConfig) -> None:
        super().__init__()
        self.config = config
        cells = CELLS[config.cells]
        cell = lambda primitives, channels, stride: ResidualCell(primitives, channels, stride, config.squeeze_excite)
        enc, dec, latents = config.channels_enc, config.channels_dec, config.latents_per_group
        scales = len(config.groups_per_scale)

        self.stem = Conv2d(config.image_channels, enc, 3)
        self.pre_process = nn.ModuleList()
        for _ in range(config.preprocess_blocks):
            self.pre_process.extend(cell(cells.pre, enc, 1) for _ in range(config.preprocess_cells - 1))
            self.pre_process.append(cell(cells.pre, enc, 2))
            enc *= 2

        # The encoder meets the groups in reverse: finest scale first, and the last group it reaches is the top one, which has no combiner.
        fine_to_coarse = tuple(reversed(config.groups_per_scale))
        dec *= 2**config.postprocess_blocks
        self.enc_tower = nn.ModuleList()
        sampler_widths: list[int] = []
        for scale, groups in enumerate(fine_to_coarse):
            for group in range(groups):
                if not config.vanilla:
                    self.enc_tower.extend(cell(cells.enc, enc, 1) for _ in range(config.cells_per_group_enc))
                if (scale, group) != (scales - 1, groups - 1):
                    self.enc_tower.append(EncoderCombiner(enc, dec))
                sampler_widths.insert(0, enc)
            if scale < scales - 1:
                self.enc_tower.append(cell(cells.enc, enc, 2))
                enc, dec = enc * 2, dec * 2
        self.enc0 = nn.Sequential(nn.ELU(), Conv2d(enc, enc, 1), nn.ELU())
        self.enc_sampler = nn.ModuleList(Conv2d(width, 2 * latents, 3) for width in sampler_widths)
        self.nf_cells = nn.ModuleList(
            nn.Sequential(*(PairedFlow(latents) for _ in range(config.flows))) for _ in config.latent_shapes
        )

        _, top, _ = config.latent_shapes[0]
        self.prior_ftr0 = nn.Parameter(torch.randn(dec, top, top))
        self.dec_tower = nn.ModuleList()
        self.dec_sampler = nn.ModuleList()
        if config.vanilla:
            self.stem_decoder = Conv2d(latents, dec, 1)
        for scale, groups in enumerate(config.groups_per_scale):
            for group in range(groups):
                if (scale, group) != (0, 0):
                    self.dec_tower.extend(cell(cells.dec, dec, 1) for _ in range(config.cells_per_group_dec))
                    self.dec_sampler.append(nn.Sequential(nn.ELU(), Conv2d(dec, 2 * latents, 1)))
                if not config.vanilla:
                    self.dec_tower.append(DecoderCombiner(dec, latents))
            if scale < scales - 1:
                self.dec_tower.append(cell(cells.dec, dec, -1))
                dec //= 2

        self.post_process = nn.ModuleList()
        for _ in range(config.postprocess_blocks):
            self.post_process.append(cell(cells.post, dec, -1))
            dec //= 2
            self.post_process.extend(cell(cells.post, dec, 1) for _ in range(config.postprocess_cells - 1))
        self.image_conditional = nn.Sequential(nn.ELU(), Conv2d(dec, config.decoder_channels, 3))

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shape (C, H, W) of every latent group, coarsest first."""
        return self.config.latent_shapes

    def distribution(self, params: Tensor) -> Decoder:
        """Return p(x | z) from its raw parameters (N, P, H, W), with this model's clamps."""
        config = self.config
        if config.likelihood == "gaussian":
            return GaussianDecoder.from_params(params, config.log_sigma_min, config.border)
        if config.likelihood == "logistic_mixture":
            return LogisticMixtureDecoder.from_params(params, config.bits, config.border)
        return BernoulliDecoder(params, config.border)

    def quantise(self, x: Tensor) -> Tensor:
        """Bring images in [0, 1] to the model's bits: floor(v / 2^(8 - bits)) / (2^bits - 1) of their 8-bit values v. Idempotent."""
        if self.config.bits == 8:
            return x
        return ((x * 255).round() / 2 ** (8 - self.config.bits)).floor() / (2**self.config.bits - 1)

    def _encode_features(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[EncoderCombiner]]:
        """Run the bottom-up pass; return the top features, and per lower group (coarse to fine) its features and combiner."""
        s = self.stem(2 * x - 1)
        for cell in self.pre_process:
            s = cell(s)
        features: list[Tensor] = []
        combiners: list[EncoderCombiner] = []
        for cell in self.enc_tower:
            if isinstance(cell, EncoderCombiner):
                combiners.insert(0, cell)
                features.insert(0, s)
            else:
                s = cell(s)
        return self.enc0(s), features, combiners

    def _top_down(
        self, choose: Callable[[int, Tensor, Normal], Tensor], batch: int, temperature: float = 1.0
    ) -> Tensor:
        """Run the decoder; ``choose(group, features, prior)`` returns the group's z. Return the parameters of p(x | z)."""
        group = 0
        s = self.prior_ftr0.expand(batch, -1, -1, -1)
        if self.config.vanilla:
            zero = s.new_zeros(batch, *self.latent_shapes[0])
            s = self.stem_decoder(choose(0, s, Normal.from_params(zero, zero, temperature)))
        for cell in self.dec_tower:
            if isinstance(cell, DecoderCombiner):
                if group == 0:
                    mu = log_sigma = s.new_zeros(batch, *self.latent_shapes[0])
                else:
                    mu, log_sigma = self.dec_sampler[group - 1](s).float().chunk(2, dim=1)
                prior = Normal.from_params(mu, log_sigma, temperature)
                s = cell(s, choose(group, s, prior))
                group += 1
            else:
                s = cell(s)
        for cell in self.post_process:
            s = cell(s)
        return self.image_conditional(s)

    def encode(self, x: Tensor, eps_z: Sequence[Tensor] | None = None) -> Encoded:
        """Draw z ~ q(z | x) with noise ``eps_z`` and decode it.

        Args:
            x: images (N, C, H, W) in [0, 1]; a model of fewer than 8 bits expects them quantised.
            eps_z: standard normal noise per group, each (N, *latent_shapes[l]); drawn from torch's generator without it.
        """
        if eps_z is None:
            eps_z = [torch.randn(len(x), *shape, device=x.device) for shape in self.latent_shapes]
        return self._draw_posterior(self._encode_features(x), eps_z)

    def _draw_posterior(
        self, encoded: tuple[Tensor, list[Tensor], list[EncoderCombiner]], eps: Sequence[Tensor]
    ) -> Encoded:
        top, features, combiners = encoded
        z: list[Tensor] = []
        kl: list[Tensor] = []
        zero = torch.zeros(len(top), device=top.device)
        log_q, log_p = zero, zero

        def choose(group: int, s: Tensor, prior: Normal) -> Tensor:
            nonlocal log_q, log_p
            joined = top if group == 0 else combiners[group - 1](features[group - 1], s)
            mu, log_sigma = self.enc_sampler[group](joined).float().chunk(2, dim=1)
            posterior = self._posterior(mu, log_sigma, group, s)
            value = posterior.transform(eps[group])
            log_q_group = posterior.log_prob(value).flatten(1).sum(1)
            value = self.nf_cells[group](value)  # flows preserve volume: log q does not change
            log_p_group = prior.log_prob(value).flatten(1).sum(1)
            kl.append(log_q_group - log_p_group if self.config.flows else posterior.kl(prior).flatten(1).sum(1))
            log_q, log_p = log_q + log_q_group, log_p + log_p_group
            z.append(value)
            return value

        params = self._top_down(choose, len(top))
        return Encoded(params, self.distribution(params), log_q, log_p, torch.stack(kl, dim=1), z)

    def _posterior(self, mu: Tensor, log_sigma: Tensor, group: int, s: Tensor) -> Normal:
        if group > 0 and self.config.residual_posterior:
            mu_p, log_sigma_p = self.dec_sampler[group - 1](s).float().chunk(2, dim=1)
            return Normal.from_params(mu + mu_p, log_sigma + log_sigma_p)
        return Normal.from_params(mu, log_sigma)

    def decode(self, eps_z: Sequence[Tensor], temperature: float = 1.0) -> Decoded:
        """Map noise to an image distribution: z_l = mu_l(z_<l) + t sigma_l(z_<l) eps_l.

        Args:
            eps_z: standard normal noise per group, each (N, *latent_shapes[l]).
            temperature: t; log p(z) is that of the prior so scaled.
        """
        z: list[Tensor] = []
        log_p = eps_z[0].new_zeros(len(eps_z[0]))

        def choose(group: int, s: Tensor, prior: Normal) -> Tensor:
            nonlocal log_p
            value = prior.transform(eps_z[group])
            log_p = log_p + prior.log_prob(value).flatten(1).sum(1)
            z.append(value)
            return value

        params = self._top_down(choose, len(eps_z[0]), temperature)
        return Decoded(params, self.distribution(params), log_p, z)

    def elbo(self, x: Tensor, eps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (log p(x | z) at one posterior sample (N,), KL per group (N, groups)), in nats; the ELBO is the first minus the sum."""
        x = self.quantise(x)
        out = self.encode(x, eps)
        return out.distribution.log_prob(x), out.kl_per_group

    def log_prob_bound(self, x: Tensor, eps: Iterator[Sequence[Tensor]] | Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the K-sample importance-weighted bound log 1/K sum_k p(x, z_k) / q(z_k | x), float64 (N,), in nats.

        K = 1 is a one-sample estimate of the ELBO. A Gaussian decoder's density is that of 2x - 1: add D log 2 for that of x. The other
        decoders give probabilities. :func:`vaebm.nvae.likelihood.bits_per_dim` brings either to bits per dimension.

        Args:
            eps: K lists of noise, one per importance sample.

        Reference: Burda et al., "Importance Weighted Autoencoders", ICLR 2016.
        """
        x = self.quantise(x)
        encoded = self._encode_features(x)  # the bottom-up pass is the same for every sample
        log_weights = []
        for noise in eps:
            out = self._draw_posterior(encoded, noise)
            log_weights.append(out.distribution.log_prob(x).double() + out.log_p.double() - out.log_q.double())
        stacked = torch.stack(log_weights)  # (K, N)
        return torch.logsumexp(stacked, 0) - torch.tensor(float(len(log_weights)), dtype=torch.float64).log()

"""The fusion is SwinTrack's: index of relative positions and a forward pass against its public code's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from reference_numbers import reference_numbers
from torch import Tensor

from tasks.tracking.fusion import Fusion
from tasks.tracking.model import Head
from tasks.tracking.options import FusionOptions
from tasks.tracking.positions import cross_index, self_index

OWN_NAMES = (
    ("encoder.layers.", "encoder."), ("decoder.layers.0.", "decoder."), ("out_norm.", "norm."),
    ("norm1_q.", "norm."), ("norm1_kv.", "key_norm."), ("norm1.", "norm."), ("norm2.", "mlp_norm."),
    ("attn.proj.", "attention.out."), ("attn.q.", "attention.query."), ("attn.kv.", "attention.pair."),
    ("z_untied_pos_enc.", "template."), ("x_untied_pos_enc.", "search."), ("pos.w_pos", "columns"),
    ("pos.h_pos", "rows"), ("pos_q_linear.", "query."), ("pos_k_linear.", "key."),
    ("rpe_bias_table.relative_position_bias_table", "relative.table"),
)  # fmt: skip
"""Of the reference -> of ours, one after the other."""


def own_names(reference: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in reference.items():
        for theirs, ours in OWN_NAMES:
            name = name.replace(theirs, ours)
        for part in ("encoder", "decoder"):
            for positions in ("template.", "search.", "relative."):
                name = name.replace(f"{part}.{positions}", f"{part}_positions.{positions}")
        if ".attn.qkv." in name:  # ours keeps the queries apart, as in the decoder
            query, pair = value.split((len(value) // 3, 2 * len(value) // 3))
            found[name.replace("attn.qkv", "attention.query")] = query
            found[name.replace("attn.qkv", "attention.pair")] = pair
        else:
            found[name] = value
    return found


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return reference_numbers("tracking/fusion.npz")


def weights(stored: dict[str, np.ndarray], prefix: tuple[str, ...]) -> dict[str, Tensor]:
    taken = {name[2:]: torch.from_numpy(stored[name]) for name in stored if name.startswith(prefix)}
    return own_names(taken)


@pytest.fixture(scope="module")
def fusion(stored: dict[str, np.ndarray]) -> Fusion:
    settings = json.loads(str(stored["settings"]))
    template, search = (tuple(settings[name]) for name in ("template", "search"))
    options = FusionOptions(
        width=settings["dim"],
        heads=settings["heads"],
        blocks=settings["encoder_layers"],
        mlp_ratio=settings["mlp_ratio"],
    )
    made = Fusion(options, template, search)
    made.load_state_dict(weights(stored, ("w.encoder.", "w.decoder.", "w.out_norm.")))
    return made.eval()


@pytest.mark.parametrize(("name", "template", "search"), [("full", (7, 7), (14, 14)), ("small", (2, 3), (4, 5))])
def test_relative_positions_are_numbered_as_the_reference_does(
    name: str, template: tuple[int, int], search: tuple[int, int]
) -> None:
    stored = reference_numbers("tracking/relative_index.npz")
    for kind, made in (("self", self_index), ("cross", cross_index)):
        index, count = made(template, search)
        np.testing.assert_array_equal(index.numpy(), stored[f"{kind}_{name}"])
        assert count == int(stored[f"{kind}_{name}"].max()) + 1
    if name == "full":
        settings = json.loads(str(stored["settings"]))
        assert (self_index(template, search)[1], cross_index(template, search)[1]) == (
            settings["n_self"],
            settings["n_cross"],
        )


def test_fusion_and_head_give_the_numbers_of_the_reference(fusion: Fusion, stored: dict[str, np.ndarray]) -> None:
    template, search = (torch.from_numpy(stored[name]) for name in "zx")
    tokens = torch.cat([template, search], 1)
    with torch.no_grad():
        positions = fusion.encoder_positions()
        for block in fusion.encoder:
            tokens = block(tokens, positions)
        read = fusion.decoder(tokens[:, template.shape[1] :], tokens, fusion.decoder_positions())
        whole = fusion(template, search, drop=True)
    for ours, theirs in ((tokens[:, :9], "enc_z"), (tokens[:, 9:], "enc_x"), (read, "dec_x")):
        np.testing.assert_allclose(ours.numpy(), stored[theirs], atol=1e-5)
    head = Head(stored["z"].shape[-1], 0.02).eval()
    named = {}
    for name, value in weights(stored, ("w.head.",)).items():
        part, place, kind = name.removeprefix("head.").replace("_mlp.layers", "").split(".")
        named[f"{'score' if part == 'cls' else 'box'}.{2 * int(place)}.{kind}"] = value
    head.load_state_dict(named)
    with torch.no_grad():
        scores, boxes = head(whole)
    np.testing.assert_allclose(scores.numpy(), stored["class_score"].reshape(2, 36), atol=1e-5)
    np.testing.assert_allclose(boxes.numpy(), stored["bbox"].reshape(2, 36, 4), atol=1e-5)


def test_drop_path_rises_over_the_layers_and_can_be_turned_off() -> None:
    fusion = Fusion(FusionOptions(width=16, heads=2, blocks=3, drop_path=0.3), (2, 2), (4, 4))
    template, search = torch.randn(2, 4, 16), torch.randn(2, 16, 16)
    fusion(template, search, drop=True)
    rates = [block.drop.drop_prob for block in (*fusion.encoder, fusion.decoder)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    once, again = (fusion(template, search, drop=False) for _ in range(2))  # in training mode
    assert torch.equal(once, again)


def test_template_bias_turns_the_search_region_to_the_template_and_nothing_else() -> None:
    terms = []
    for bias in (0.0, 3.0):
        torch.manual_seed(0)
        fusion = Fusion(FusionOptions(width=16, heads=2, blocks=1, template_bias=bias), (7, 7), (14, 14))
        terms.append([part().detach()[0] for part in (fusion.encoder_positions, fusion.decoder_positions)])
    for plain, turned, first in zip(*terms, (49, 0), strict=True):  # first: the first query of the search region
        apart = torch.zeros_like(plain)
        apart[:, first:, :49] = 3.0
        torch.testing.assert_close(turned - plain, apart)
    shares = [made[0][:, 49:].softmax(-1)[..., :49].sum(-1).mean().item() for made in terms]
    assert shares == pytest.approx([49 / 245, 0.834], abs=0.01)  # of the attention, before the content's part


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads 3 do not divide width 16: use one of 1, 2, 4, 8, 16 "):
        FusionOptions(width=16, heads=3)

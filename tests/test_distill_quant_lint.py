"""The catalogue, what its students cost, and the lint that refuses what INT8 treats badly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from distill.backbone import build_backbone, load_backbone_weights, middle_layer, output_shape
from distill.catalogue import CATALOGUE, SIZES_PX, CatalogueEntry, student_config
from distill.cost import backbone_cost
from distill.quant_lint import _CHECKS, _OPERATORS, lint_backbone, refuse_bad_backbone
from distill.quant_lint_cli import quant_lint
from distill.quant_rules import RULES
from distill.student import Student, StudentConfig, load_student, save_student
from edge_runtime.cli import main
from edge_runtime.errors import CheckpointError, ConfigError


def shape(arch: str) -> StudentConfig:
    return student_config(arch, size_px=224)


def rules(arch: str, weight: str) -> set[str]:
    return {one.rule for one in lint_backbone(shape(arch)) if one.weight == weight}


@pytest.mark.parametrize(
    ("arch", "grave"),
    [
        ("efficientnet_b0", {"squeeze_excite", "silu", "sigmoid_gate"}),
        ("mobilenetv3_small_100", {"squeeze_excite", "hard_swish", "sigmoid_gate"}),
        ("convnext_atto", {"gelu", "layer_norm"}),
        ("vit_tiny_patch16_224", {"gelu", "layer_norm", "attention"}),
        ("repvgg_a0", {"reparameterized"}),
        ("mobileone_s0", {"reparameterized"}),
        ("hgnetv2_b0", set()),
        ("mobilenetv4_conv_small", set()),
        ("mobilenetv2_100", set()),
        ("resnet50", set()),
        ("regnetx_004", set()),
    ],
)
def test_known_networks_and_what_is_wrong_with_them(arch, grave) -> None:
    assert rules(arch, "refuse") == grave


def test_two_outputs_an_input_channel_are_found() -> None:
    assert "depthwise_multiplier" in rules("fastvit_t8", "refuse")


def test_what_is_worth_a_note() -> None:
    assert rules("mobilenetv2_100", "note") == {"depthwise"}
    assert rules("resnet50", "note") == {"pooling"}
    assert "learnable_affine" in rules("hgnetv2_b0", "note")
    assert rules("regnetx_004", "note") == {"grouped"}


def test_a_finding_counts_layers_and_names_the_first() -> None:
    found = {one.rule: one for one in lint_backbone(shape("efficientnet_b0"))}
    backbone = build_backbone(shape("efficientnet_b0"))
    silu = [name for name, m in backbone.named_modules() if isinstance(m, nn.SiLU)]
    assert found["silu"].num_layers == len(silu)
    assert found["silu"].first == silu[0]
    weights = [one.weight for one in lint_backbone(shape("efficientnet_b0"))]
    assert weights == sorted(weights, reverse=True)  # 'refuse' before 'note'


class CallsFunctions(nn.Module):
    """What a search for layers cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = nn.functional.silu(self.conv(x), inplace=True)
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def test_functions_of_the_forward_pass_are_found(monkeypatch) -> None:
    monkeypatch.setattr("distill.quant_lint.build_backbone", lambda _: CallsFunctions())
    found = {one.rule: one for one in lint_backbone(StudentConfig())}
    assert set(found) == {"silu", "sigmoid_gate"}
    assert found["silu"].num_layers == 0


def test_every_check_has_a_rule_and_every_rule_a_check() -> None:
    assert {*_CHECKS, *_OPERATORS.values()} == set(RULES)
    assert all(name == rule.name for name, rule in RULES.items())
    assert {rule.weight for rule in RULES.values()} == {"refuse", "note"}


def test_a_bad_backbone_is_refused_unless_allowed_aloud(caplog) -> None:
    with pytest.raises(ConfigError, match=r"silu \(\d+ layers\).*--allow-quant-lint"):
        refuse_bad_backbone(shape("efficientnet_b0"), allowed=False)
    assert refuse_bad_backbone(shape("efficientnet_b0"), allowed=True)
    assert "although quant-lint refuses it: " in caplog.text
    caplog.clear()
    assert refuse_bad_backbone(shape("mobilenetv2_100"), allowed=True)
    assert caplog.text == ""


def test_the_catalogue_is_clean_and_covers_every_tier() -> None:
    assert {entry.tier for entry in CATALOGUE.values()} == {"tiny", "safe", "accurate"}
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert refuse_bad_backbone(entry.config(SIZES_PX[0]), allowed=False) is not None
    tiny = [entry for entry in CATALOGUE.values() if entry.tier == "tiny"]
    assert all(backbone_cost(one.config(96)).num_parameters <= 5_000_000 for one in tiny)
    with pytest.raises(ConfigError, match="tier"):
        CatalogueEntry(name="x", tier="huge", arch="resnet18", reason="")


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_student_of_the_catalogue_gives_maps_and_two_depths(name) -> None:
    torch.manual_seed(0)
    config = CATALOGUE[name].config(64)
    student = Student(config, ("edema",)).eval()
    with torch.no_grad():
        out = student(torch.randn(1, 3, 64, 64))
    assert out.evidence.shape == (1, 1, 2, 2)
    assert out.embedding.shape == (1, student.width)
    assert out.laterality_logit.shape == (1, 1)
    seen = []
    layer = student.backbone.get_submodule(middle_layer(student.backbone))
    layer.register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
    student(torch.randn(1, 3, 64, 64))
    assert seen == [4]  # stride 16, before the final 32
    assert output_shape(student.backbone, name) == (student.width, 32)


def slow_conv_macs(module: nn.Conv2d, side: int) -> int:
    """One multiplication for each output place, output channel, kernel place and input channel."""
    per_place = module.kernel_size[0] * module.kernel_size[1]
    return side * side * module.out_channels * per_place * module.in_channels // module.groups


def test_costs_by_hand() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)

        def forward(self, x):
            return self.b(self.a(x))

    two = Two()
    import distill.cost as cost_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_module, "build_backbone", lambda _: Two())
        cost = backbone_cost(StudentConfig(size_px=32))
    assert cost.num_parameters == 3 * 8 * 9 + 8 + 8 * 9
    assert cost.num_macs == slow_conv_macs(two.a, 16) + slow_conv_macs(two.b, 16)


def test_costs_that_are_published() -> None:
    """ResNet-50 without its classifier: 23.5 million weights, 4.09 billion at 224 px."""
    cost = backbone_cost(shape("resnet50"))
    assert cost.num_parameters == 23_508_032
    assert cost.num_macs == pytest.approx(4.09e9, rel=2e-3)


@pytest.mark.parametrize(
    ("arch", "named"),
    [
        ("efficientvit_b1", "cannot build"),
        ("vit_tiny_patch16_224", "another size"),
        ("no_such_network", "no model"),
    ],
)
def test_backbones_without_a_map_are_refused(arch, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Student(shape(arch), ("edema",))


def test_channels_belong_to_basic_block_resnets_alone() -> None:
    with pytest.raises(ConfigError, match="stem_width"):
        StudentConfig(arch="mobilenetv2_100", channels=(), stem_width=16)
    with pytest.raises(ConfigError, match="takes no channels"):
        StudentConfig(arch="mobilenetv2_100")


def test_a_backbone_of_its_own_shape_survives_a_checkpoint(tmp_path) -> None:
    config = StudentConfig(size_px=32, arch="mobilenetv4_conv_small", channels=(), stem_width=0)
    student = Student(config, ("edema",)).eval()
    save_student(tmp_path, student, {})
    again, _ = load_student(tmp_path)
    assert again.config == config
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(image).evidence, student(image).evidence)


def test_local_weights_are_loaded_whole_or_refused(tmp_path) -> None:
    torch.manual_seed(0)
    ours, theirs = build_backbone(StudentConfig()), build_backbone(StudentConfig())
    tensors = {**theirs.state_dict(), "fc.weight": torch.zeros(4, 192), "fc.bias": torch.zeros(4)}
    save_file(tensors, str(tmp_path / "all.safetensors"))
    load_backbone_weights(ours, tmp_path / "all.safetensors")
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())
    del tensors["conv1.0.weight"]
    save_file(tensors, str(tmp_path / "part.safetensors"))
    with pytest.raises(CheckpointError, match="another network"):
        load_backbone_weights(ours, tmp_path / "part.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors")
    for name in ("bad.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_backbone_weights(ours, tmp_path / name)


def run(*words: str):
    return CliRunner().invoke(quant_lint, list(words))


def test_the_command_says_why_and_what_to_do_and_ends_with_2() -> None:
    main.add_command(quant_lint)
    try:
        outcome = CliRunner().invoke(main, ["quant-lint", "mobilenetv3_small_100"])
    finally:
        main.commands.pop("quant-lint")
    assert outcome.exit_code == 2
    assert "hard_swish" in outcome.output
    assert RULES["hard_swish"].remedy in outcome.output
    assert "error:" in outcome.output


def test_the_command_on_a_good_backbone() -> None:
    outcome = run("compact")
    assert outcome.exit_code == 0
    assert "nothing that INT8" in outcome.output
    outcome = run("mobilenetv2_100", "--json")
    assert outcome.exit_code == 0
    assert [one["rule"] for one in json.loads(outcome.output)["findings"]] == ["depthwise"]


def test_the_command_shows_the_catalogue_with_computed_costs(monkeypatch) -> None:
    names = ("compact", "efficientnet_es")
    some = {name: CATALOGUE[name] for name in names}
    monkeypatch.setattr("distill.catalogue.CATALOGUE", some)
    outcome = run("--json")
    rows = json.loads(outcome.output)["students"]
    assert [row["name"] for row in rows] == list(names)
    compact = rows[0]
    assert compact["million_parameters"] == pytest.approx(
        sum(p.numel() for p in build_backbone(StudentConfig()).parameters()) / 1e6
    )
    assert compact["gmacs"]["512"] / compact["gmacs"]["224"] == pytest.approx(
        (512 / 224) ** 2, rel=0.02
    )
    text = run().output
    assert all(name in text and CATALOGUE[name].reason in text for name in names)


@pytest.mark.slow
def test_the_guides_table_is_what_the_command_counts() -> None:
    text = (Path(__file__).parent.parent / "docs" / "distill-and-export.md").read_text("utf-8")
    for row in json.loads(run("--json").output)["students"]:
        gmacs = " | ".join(f"{value:.2f}" for value in row["gmacs"].values())
        line = f"| {row['name']} | {row['tier']} | {row['million_parameters']:.2f} | {gmacs} |"
        assert line in text

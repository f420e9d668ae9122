"""Distillation: its terms against independent formulas, and that a teacher is only looked at."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import rel_entr, softmax
from torch import Tensor, nn

from ttl_deploy.errors import UsageError, WeightsError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.backbones import build_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention, ModelSpec
from ttl_deploy.records.trials import Trial
from ttl_deploy.training import batches, devices, losses
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import Progress, run_trial
from ttl_deploy.training.material import Setup
from ttl_deploy.training.strategies import Teaching, find_strategy
from ttl_deploy.training.teaching import Lessons, Teacher, find_common_stages, relative_distance, soft_divergence

CPU = torch.device("cpu")
MakeTrial = Callable[..., Trial]
WEIGHTS = torch.tensor([0.5, 2.0])
FULL = ModelSpec(backbone="resnet18", cut="full", classes=2, image_size=32)


@pytest.fixture
def make_teacher(tmp_path: Path) -> Callable[..., tuple[TruncatedModel, Teacher]]:
    """Build a network, by default a whole ResNet-18, with random weights; and describe it as a teacher."""

    def make(seed: int = 5, spec: ModelSpec = FULL, **changes: object) -> tuple[TruncatedModel, Teacher]:
        torch.manual_seed(seed)
        model = truncation.build(spec)
        with torch.no_grad():  # logits that differ between images in spite of random weights
            for parameter in model.head.parameters():
                parameter.mul_(20)
        path = tmp_path / f"teacher{seed}.safetensors"
        weights.save_weights(model, path)
        return model, replace(Teacher(model=spec, weights=path, input=IMAGENET_INPUT), **changes)

    return make


def set_up(trial: Trial, model: TruncatedModel, data: LabelledPixels, class_weights: Tensor | None = None) -> Setup:
    return Setup(
        trial=trial,
        train=data,
        val=data,
        model=model,
        compiled=model,
        scored=model,
        loss=losses.cross_entropy(class_weights, label_smoothing=0.0),
        class_weights=class_weights,
        device=CPU,
    )


def draw_images(count: int = 13) -> tuple[Tensor, Tensor]:
    torch.manual_seed(9)
    return 255 * torch.rand(count, 3, 32, 32), torch.tensor(([0, 0, 1] * count)[:count])


def test_the_divergence_is_scipys_for_softened_probabilities() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 3, (2, 20, 4))
    for temperature in (1.0, 2.0, 7.5):
        expected = rel_entr(softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)).sum(1)
        given = soft_divergence(torch.tensor(student), torch.tensor(teacher), temperature=temperature)
        np.testing.assert_allclose(given, temperature**2 * expected, rtol=1e-9)


def test_the_divergences_gradient_is_the_difference_of_the_probabilities_times_the_temperature() -> None:
    student, teacher = (
        torch.randn(6, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(6, 3, dtype=torch.float64),
    )
    soft_divergence(student, teacher, temperature=3.0).sum().backward()
    expected = 3.0 * (torch.softmax(student / 3.0, 1) - torch.softmax(teacher / 3.0, 1))
    torch.testing.assert_close(student.grad, expected.detach())
    student.grad = None
    soft_divergence(student, student.detach().clone(), temperature=3.0).sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_the_distance_is_relative_to_the_teachers_features() -> None:
    student, teacher = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    for s, t, given in zip(student, teacher, relative_distance(student, teacher), strict=True):
        expected = np.linalg.norm((s - t).numpy()) ** 2 / np.linalg.norm(t.numpy()) ** 2
        assert float(given) == pytest.approx(expected, rel=1e-5)
    assert relative_distance(teacher, teacher).tolist() == [0.0] * 5
    torch.testing.assert_close(relative_distance(3 * teacher, teacher), torch.full((5,), 4.0))
    torch.testing.assert_close(relative_distance(1e3 * student, 1e3 * teacher), relative_distance(student, teacher))


def features_of_stages(trunk: nn.Module, images: Tensor) -> list[Tensor]:
    """Run torchvision's own ResNet-18 with a trunk's weights, up to the ends of its first two stages."""
    network = build_backbone("resnet18", image_size=32)
    network.load_state_dict(trunk.state_dict(), strict=False)
    network.train(trunk.training)
    first = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(images)))))
    return [first, network.layer2(first)]


@pytest.mark.parametrize(
    ("weight", "features", "class_weights"),
    [(0.3, 0.7, WEIGHTS), (0.3, 0.7, None), (0.3, 0.0, WEIGHTS), (0.0, 0.7, WEIGHTS), (1.0, 0.0, None)],
)
def test_the_loss_is_the_sum_that_the_documents_state(
    make_trial: MakeTrial,
    make_teacher: Callable[..., tuple[TruncatedModel, Teacher]],
    train_pixels: LabelledPixels,
    class_weights: Tensor | None,
    weight: float,
    features: float,
) -> None:
    whole, teacher = make_teacher()
    trial = make_trial()
    spec = replace(trial.model, cut="layer3.0", dropout=0.0)
    torch.manual_seed(1)
    student = truncation.build(spec)
    setup = set_up(replace(trial, model=spec), student, train_pixels, class_weights)
    lessons = Lessons(setup, Teaching(weight=weight, temperature=4.0, features=features), teacher)
    pixels, labels = draw_images()
    loss = lessons.loss(pixels, labels)

    whole.eval()
    truth = truncation.build(spec)
    truth.load_state_dict(student.state_dict())
    images = batches.normalise(pixels, IMAGENET_INPUT)
    with torch.no_grad():
        ours, theirs = truth(images).numpy().astype(float), whole(images).numpy().astype(float)
        pairs = zip(*(features_of_stages(model.trunk, images) for model in (truth, whole)), strict=True)
        distances = [((s - t) ** 2).sum((1, 2, 3)) / (t**2).sum((1, 2, 3)) for s, t in pairs]
    share = np.ones(13) if class_weights is None else class_weights.numpy()[labels]
    share = share / share.sum()
    entropy = -np.log(softmax(ours, axis=1))[np.arange(13), labels]
    divergence = 16 * rel_entr(softmax(theirs / 4, axis=1), softmax(ours / 4, axis=1)).sum(1)
    distance = torch.stack(distances).mean(0).numpy()
    expected = share @ ((1 - weight) * entropy + weight * divergence + features * distance)
    assert float(loss.detach()) == pytest.approx(expected, rel=2e-4)


def test_the_parts_of_a_mini_batch_add_up_to_its_loss(
    make_trial: MakeTrial, make_teacher: Callable[..., tuple[TruncatedModel, Teacher]], train_pixels: LabelledPixels
) -> None:
    trial = make_trial()
    spec = replace(trial.model, cut="layer2.1", dropout=0.0)
    torch.manual_seed(1)
    student = truncation.build(spec).eval()  # BatchNorm would take each part's own statistics
    setup = set_up(replace(trial, model=spec), student, train_pixels, WEIGHTS)
    lessons = Lessons(setup, Teaching(weight=0.4, temperature=2.0, features=0.5), make_teacher()[1])
    pixels, labels = draw_images()
    parts = [
        lessons.loss(images, wanted) * WEIGHTS[wanted].sum() / WEIGHTS[labels].sum()
        for images, wanted in zip(pixels.split(5), labels.split(5), strict=True)
    ]
    torch.testing.assert_close(sum(parts), lessons.loss(pixels, labels))


def test_a_student_that_is_its_teacher_is_told_nothing(
    make_trial: MakeTrial, make_teacher: Callable[..., tuple[TruncatedModel, Teacher]], train_pixels: LabelledPixels
) -> None:
    whole, teacher = make_teacher()
    setup = set_up(replace(make_trial(), model=FULL), devices.place(whole.eval(), CPU), train_pixels)
    pixels, labels = draw_images()
    for teaching in (
        Teaching(weight=1.0, temperature=3.0, features=0.0),
        Teaching(weight=1.0, temperature=3.0, features=2.0),
    ):
        whole.zero_grad()
        loss = Lessons(setup, teaching, teacher).loss(pixels, labels)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
        assert max(float(parameter.grad.abs().max()) for parameter in whole.parameters()) < 1e-5


def test_a_truncated_students_features_term_vanishes_where_its_trunk_is_the_teachers(
    make_trial: MakeTrial, make_teacher: Callable[..., tuple[TruncatedModel, Teacher]], train_pixels: LabelledPixels
) -> None:
    whole, teacher = make_teacher()
    trial = make_trial()
    spec = replace(trial.model, cut="layer3.1", dropout=0.0)
    student = truncation.build(spec)
    own = student.trunk.state_dict()
    student.trunk.load_state_dict({name: value for name, value in whole.trunk.state_dict().items() if name in own})
    setup = set_up(replace(trial, model=spec), devices.place(student.eval(), CPU), train_pixels)
    pixels, labels = draw_images()
    plain, taught = (
        Lessons(setup, Teaching(weight=0.0, temperature=1.0, features=weight), teacher).loss(pixels, labels)
        for weight in (0.0, 1e6)
    )
    assert torch.equal(plain, taught)


def test_the_teacher_keeps_its_weights_statistics_and_mode_and_sees_its_own_normalisation(
    make_trial: MakeTrial,
    make_teacher: Callable[..., tuple[TruncatedModel, Teacher]],
    train_pixels: LabelledPixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = InputConvention(mean=(0.5,), std=(0.25,))
    whole, teacher = make_teacher(input=replace(other, mean=(0.5,) * 3, std=(0.25,) * 3))
    built: list[TruncatedModel] = []
    seen: list[Tensor] = []
    build = truncation.build

    def watched(spec: ModelSpec) -> TruncatedModel:
        built.append(build(spec))
        return built[-1]

    monkeypatch.setattr(truncation, "build", watched)
    trial = make_trial()
    student = build(trial.model)
    lessons = Lessons(
        set_up(trial, student, train_pixels), Teaching(weight=0.5, temperature=2.0, features=0.0), teacher
    )
    built[0].trunk.conv1.register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    pixels, labels = draw_images()
    student.train()
    lessons.loss(pixels, labels).backward()
    assert all(torch.equal(value, built[0].state_dict()[name]) for name, value in whole.state_dict().items())
    assert all(parameter.grad is None for parameter in built[0].parameters())
    torch.testing.assert_close(seen[0], (pixels / 255 - 0.5) / 0.25)


Train = Callable[..., None]


@pytest.fixture
def train(tmp_path: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels) -> Train:
    """Run a trial in a folder of that name."""

    def run(
        trial: Trial, name: str, teacher: Teacher | None = None, report: Callable[[Progress], None] = lambda _: None
    ) -> None:
        run_trial(
            trial,
            train=train_pixels,
            val=val_pixels,
            folder=tmp_path / name,
            device=CPU,
            teacher=teacher,
            report=report,
        )

    return run


@pytest.mark.parametrize("learn", ["full", "linear-probe", "lp-ft", "auto-rgn"])
def test_with_weights_of_zero_a_trial_is_bit_for_bit_one_without_a_teacher(
    make_trial: MakeTrial,
    make_teacher: Callable[..., tuple[TruncatedModel, Teacher]],
    train: Train,
    tmp_path: Path,
    learn: str,
) -> None:
    trial = make_trial(epochs=2)
    train(replace(trial, strategy=learn), "alone")
    nothing = replace(trial, strategy=f"distill?learn={learn}&weight=0&features=0")
    train(nothing, "taught", make_teacher()[1])
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("alone", "taught"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_taught_trials_differ_from_untaught_ones_and_work_with_compile_ema_and_little_memory(
    make_trial: MakeTrial,
    make_teacher: Callable[..., tuple[TruncatedModel, Teacher]],
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    _, teacher = make_teacher()
    trial = replace(make_trial(epochs=2, ema=0.5, compile=True))
    trial = replace(trial, model=replace(trial.model, cut="layer2.0"))
    calls: list[int] = []
    build = truncation.build

    def limited(spec: ModelSpec) -> TruncatedModel:
        model = build(spec)
        model.head.register_forward_pre_hook(lambda head, given: check(len(given[0])) if head.training else None)
        return model

    def check(images: int) -> None:
        calls.append(images)
        if images > 8:
            raise torch.OutOfMemoryError("fake")

    monkeypatch.setattr(truncation, "build", limited)
    train(replace(trial, strategy="full"), "alone")
    train(replace(trial, strategy="distill?weight=0.9&features=1"), "taught", teacher)
    assert set(calls) == {16, 8}
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("alone", "taught"))
    assert not torch.equal(first["trunk.conv1.weight"], second["trunk.conv1.weight"])


def test_the_whole_network_can_learn_from_itself(
    make_trial: MakeTrial, make_teacher: Callable[..., tuple[TruncatedModel, Teacher]], train: Train, tmp_path: Path
) -> None:
    trial = replace(make_trial(epochs=1), model=FULL, strategy="distill?weight=1&features=1")
    train(trial, "born again", make_teacher()[1])
    assert (tmp_path / "born again" / "result.json").exists()


def test_stages_in_common_are_those_before_the_shallower_of_the_two_cuts() -> None:
    stages = [cut.name for cut in list_cuts("mobilenet_v2", image_size=96, classes=2) if cut.stage]
    whole = ModelSpec(backbone="mobilenet_v2", cut="full", classes=2, image_size=96)
    assert find_common_stages(whole, whole) == tuple(stages)
    assert find_common_stages(replace(whole, cut="features.9"), whole) == ("features.1", "features.3", "features.6")
    assert find_common_stages(replace(whole, cut="features.6"), whole) == ("features.1", "features.3")
    assert find_common_stages(whole, replace(whole, cut="features.6")) == ("features.1", "features.3")
    assert find_common_stages(replace(whole, cut="features.1"), whole) == ()


def test_a_strategy_that_wants_a_teacher_says_so_where_there_is_none(make_trial: MakeTrial, train: Train) -> None:
    with pytest.raises(UsageError, match=r"needs a teacher but none is given: .* with 'l2-sp' and the same seed"):
        train(replace(make_trial(), strategy="distill?teacher=l2-sp"), "alone")


@pytest.mark.parametrize(
    ("changes", "features", "reason"),
    [
        ({"classes": 3}, 0, "has classes 3, the model that learns from it classes 2"),
        ({"image_size": 64}, 0, "has image size 64, .* image size 32"),
        ({"backbone": "resnet34"}, 1, "has backbone resnet34, .* backbone resnet18"),
    ],
)
def test_a_teacher_that_does_not_suit_is_refused(
    make_trial: MakeTrial, train: Train, tmp_path: Path, changes: dict[str, object], features: int, reason: str
) -> None:
    teacher = Teacher(model=replace(FULL, **changes), weights=tmp_path / "t.safetensors", input=IMAGENET_INPUT)
    with pytest.raises(UsageError, match=reason):
        train(replace(make_trial(), strategy=f"distill?features={features}"), "unsuited", teacher)


def test_a_teacher_that_is_not_there_or_has_other_weights_is_refused(
    make_trial: MakeTrial, make_teacher: Callable[..., tuple[TruncatedModel, Teacher]], train: Train, tmp_path: Path
) -> None:
    trial = replace(make_trial(), strategy="distill")
    with pytest.raises(WeightsError, match="cannot be read"):
        train(trial, "absent", Teacher(model=FULL, weights=tmp_path / "none.safetensors", input=IMAGENET_INPUT))
    _, other = make_teacher(model=replace(FULL, cut="layer1.0"))
    with pytest.raises(WeightsError, match="weights of another model"):
        train(trial, "other", other)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("distill?learn=distill", "learn=distill: it needs a teacher itself"),
        ("distill?teacher=distill", "teacher=distill: it needs a teacher itself"),
        ("distill?learn=lwft", "needs a depth"),
        ("distill?weight=1.5", "weight=1.5: give a number from 0 to 1"),
        ("distill?weight=-0.1", "weight=-0.1: give a number from 0 to 1"),
        ("distill?features=-1", "features=-1: give a number of 0 or more"),
        ("distill?features=inf", "features=inf: give a number of 0 or more"),
        ("distill?temperature=0", "temperature=0: give a number above 0"),
        ("distill?weight=much", "weight='much' is not a number"),
        ("distill?teacher=nobody", "nobody"),
    ],
)
def test_options_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_strategy(text)


def test_the_phases_are_those_of_the_strategy_by_which_the_model_learns(make_trial: MakeTrial) -> None:
    trial = make_trial(epochs=4)
    model = truncation.build(trial.model)
    plain = find_strategy("lp-ft").phases(model, trial.model, trial.train)
    taught = find_strategy("distill?learn=lp-ft&weight=0.3&temperature=5&features=2").phases(
        model, trial.model, trial.train
    )
    teaching = Teaching(weight=0.3, temperature=5.0, features=2.0)
    assert taught == tuple(replace(phase, teaching=teaching) for phase in plain)
    assert find_strategy("distill?teacher=l2-sp").teacher == "l2-sp"
    assert find_strategy("distill").teacher == "full"
    assert find_strategy("full").teacher is None

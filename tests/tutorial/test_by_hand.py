"""What notebook 05 writes by hand is what TRL computes: its two functions, taken out of the notebook."""

import nbformat
import pandas as pd
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.paths import PROJECT


def from_notebook(name):
    """The function of that name, defined at the top of one of the notebook's cells."""
    cells = nbformat.read(PROJECT / "notebooks" / "05_grpo_by_hand.ipynb", as_version=4).cells
    [source] = [cell.source for cell in cells if cell.source.startswith(f"def {name}(")]
    scope = {"torch": torch}
    exec(source.split("\n\n\n")[0], scope)
    return scope[name]


def trainer_for(folder, reward=lambda completions, **kwargs: [0.0] * len(completions), **options):
    config = GRPOConfig(
        str(folder),
        use_cpu=True,
        bf16=False,  # TRL's default is autocast to bfloat16, on a CPU too
        report_to="none",
        activation_checkpointing=False,
        disable_tqdm=True,
        **options,
    )
    problems = Dataset.from_dict({"prompt": ["1 + 1 =", "What is 2 + 2?"]})
    tokenizer = load_tokenizer("tiny-random")
    return GRPOTrainer(load_policy("tiny-random"), reward, config, problems, processing_class=tokenizer)


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_those_of_a_training_step(tmp_path, scale):
    paid = iter(torch.rand(8, generator=torch.Generator().manual_seed(0)).tolist())
    trainer = trainer_for(
        tmp_path,
        lambda completions, **kwargs: [next(paid) for _ in completions],
        max_steps=1,
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=3,
        scale_rewards="group" if scale else "none",
        log_completions=True,
        num_completions_to_print=0,
    )
    trainer.train()
    [file] = (tmp_path / "completions").glob("*.parquet")
    rows = pd.read_parquet(file)
    [reward] = [name for name in rows.columns if "lambda" in name]
    by_hand = from_notebook("advantages")(torch.tensor(rows[reward].to_numpy()).view(2, 4), scale)
    assert by_hand.flatten().tolist() == pytest.approx(rows["advantage"].tolist(), abs=1e-5)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    trainer = trainer_for(tmp_path_factory.mktemp("run"))
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.mark.parametrize("moved", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_loss_and_gradient_are_trls(trainer, moved, beta):
    torch.manual_seed(0)
    model, width = trainer.model, 5
    ids, lengths = torch.randint(0, 256, (6, 4 + width)), torch.tensor([5, 1, 3, 5, 2, 4])
    mask = (torch.arange(width) < lengths[:, None]).float()
    logits = model(ids).logits[:, 3:-1]
    logp = logits.log_softmax(-1).gather(2, ids[:, 4:, None]).squeeze(2)
    old, reference = logp.detach() + moved * torch.randn(6, width), logp.detach() + torch.randn(6, width)
    advantage = torch.randn(6)
    by_hand = from_notebook("grpo_loss")(logp, old, advantage[:, None], mask, beta=beta, ref_logp=reference)

    trainer.beta, trainer.args.use_bias_correction_kl = beta, False
    batch = {"prompt_ids": ids[:, :4], "prompt_mask": torch.ones(6, 4), "advantages": advantage}
    batch |= {"completion_ids": ids[:, 4:], "completion_mask": mask, "num_items_in_batch": mask.sum()}
    batch |= {"old_per_token_logps": old, "ref_per_token_logps": reference}
    theirs = trainer.compute_loss(model, batch)
    assert by_hand.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-6)
    ours, trls = (torch.autograd.grad(loss, list(model.parameters())) for loss in (by_hand, theirs))
    for mine, other in zip(ours, trls, strict=True):
        assert (mine - other).norm() <= 1e-4 * other.norm()

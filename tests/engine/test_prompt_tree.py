"""Every token of the packed tree sees what its row would see alone, and shared tokens stand once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sampling import PROMPTS, TOKENIZER, tiny

from rlvr_kit.engine.prompt_tree import additive, branch_attention, prompt_tree, use_tree_attention


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_every_row_of_the_tree_sees_what_it_would_see_alone(kind: str) -> None:
    model = tiny(kind)
    prompts = [TOKENIZER(p)["input_ids"] for p in PROMPTS]
    branches = [(0, [5, 6, 7]), (2, [9]), (0, [8, 8])]
    tree = prompt_tree(prompts, branches)
    use_tree_attention(model)
    packed = model(
        input_ids=tree.ids, position_ids=tree.positions, attention_mask=additive(tree.mask, torch.float32),
        branches=branch_attention(tree, 2, torch.float32),
    ).logits[0]  # fmt: skip
    for prompt, span in zip(prompts, tree.spans, strict=True):
        end = (span.stop if len(span) else tree.common) - 1
        alone = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(packed[end], alone, rtol=1e-4, atol=1e-5)
    for (owner, tokens), span in zip(branches, tree.branches, strict=True):
        alone = model(input_ids=torch.tensor([prompts[owner] + tokens])).logits[0, -len(tokens) :]
        torch.testing.assert_close(packed[span.start : span.stop], alone, rtol=1e-4, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_tree_holds_each_shared_token_once(prompts: list[list[int]]) -> None:
    tree = prompt_tree(prompts)
    assert tree.ids.shape[1] == tree.common + sum(len(p) - tree.common for p in prompts)
    for prompt, span in zip(prompts, tree.spans, strict=True):
        seen = tree.mask[0, 0, span.stop - 1 if len(span) else tree.common - 1]
        assert tree.ids[0, seen].tolist() == prompt
        assert tree.positions[0, seen].tolist() == list(range(len(prompt)))

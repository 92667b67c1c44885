"""What stands between an exported folder and the Hub. Nothing here reaches it: its answers are given in its place."""

import shutil

import httpx
import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from rlvr_kit import UserError
from rlvr_kit.share.hub import push


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")


@pytest.fixture
def calls(monkeypatch):
    """What would have been sent."""
    made = []
    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, repo, **o: made.append((repo, o)) or f"https://hub/{repo}"
    )
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **options: made.append(options))
    return made


def test_private_unless_public_is_asked_for(folders, token, calls):
    assert push(folders["merged"], "me/model") == "https://hub/me/model"
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == folders["merged"] and calls[1]["repo_id"] == "me/model"
    push(folders["merged"], "me/model", public=True)
    assert calls[2][1]["private"] is False


def test_without_a_token_it_says_how_to_get_one(folders, calls, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no Hub token: make one.*hf auth login"):
        push(folders["merged"], "me/model")
    assert calls == []


def test_a_folder_that_was_not_exported_or_has_no_licence_stays_here(folders, token, calls, tmp_path):
    with pytest.raises(UserError, match="is not an exported model"):
        push(tmp_path, "me/model")
    copy = shutil.copytree(folders["merged"], tmp_path / "copy")
    card = ModelCard.load(copy / "README.md")
    card.data.license = "unknown"
    card.save(copy / "README.md")
    with pytest.raises(UserError, match="does not name the base.s licence.*--licence"):
        push(copy, "me/model")
    assert calls == []


@pytest.mark.parametrize("status, advice", [(403, "write access"), (401, "write access"), (500, "refused")])
def test_a_token_without_rights_is_one_line(status, advice, folders, token, monkeypatch):
    def refuse(self, repo, **options):
        answer = httpx.Response(status, request=httpx.Request("POST", "https://hub"))
        raise HfHubHTTPError(f"{status} Client Error\nmore", response=answer)

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=advice) as caught:
        push(folders["merged"], "me/model")
    assert "\n" not in str(caught.value)


def test_offline_and_bad_names_are_one_line(folders, token):
    with pytest.raises(UserError, match="could not be reached"):
        push(folders["merged"], "me/model")  # the tests run with HF_HUB_OFFLINE=1
    with pytest.raises(UserError, match="cannot be a model.s name"):
        push(folders["merged"], "not a name/at all/really")

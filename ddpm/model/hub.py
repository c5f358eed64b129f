"""A model repository on the Hugging Face Hub, where others find an exported model and its card."""

from pathlib import Path

from ddpm.runtime.errors import InputError, RunError, first_line


def push(folder: Path, repository: str) -> str:
    """Upload an exported model, and create its repository, a private one, if there is none.

    Args:
        folder: what `python -m ddpm export` wrote.
        repository: OWNER/NAME.

    Returns:
        The address of its page.

    Raises:
        InputError: huggingface-hub is not installed, the name is no OWNER/NAME, or the hub knows no user who may write.
        RunError: the hub cannot be reached, or fails.
    """
    try:
        from huggingface_hub import HfApi  # an optional extra
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise InputError("--push: huggingface-hub is not installed; `pip install huggingface-hub` adds it") from None
    if repository.count("/") != 1:
        raise InputError(f"--push: found {repository!r}; name a repository as OWNER/NAME")
    hub = HfApi()
    try:
        page = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Model exported by flowers-ddpm")
    except HFValidationError as error:
        raise InputError(
            f"--push: found {repository!r}; name a repository as OWNER/NAME ({first_line(error)})"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise InputError(
                f"--push: the hub does not let you write to {repository}; log in with `hf auth login`, or set HF_TOKEN "
                "to a token that may"
            ) from None
        raise _failed(hub.endpoint, error) from None
    except Exception as error:  # of whichever HTTP library it uses
        raise _failed(hub.endpoint, error) from None
    return str(page)


def _failed(endpoint: str, error: Exception) -> RunError:
    return RunError(f"--push: {endpoint} failed ({first_line(error)}); nothing is lost here, push again later")

"""One repository of the Hugging Face Hub: fetch a file, publish files, and errors of one line.

All of it goes through the Hub's own client, `huggingface_hub`. Cache, token, endpoint, offline mode
and progress bars are the client's: `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import HubError, UnknownName, WeightsError, first_line, one_line
from zoo.manifest import COMMIT, REPO

__all__ = ["HubRepo", "MissingFile", "check_repo", "push"]

LIBRARY_NAME = "danet-zoo"  # how the client introduces itself
# What to do where the Hub answers with one of these status codes.
ADVICE = {
    401: "log in or set a valid HF_TOKEN",
    403: "the token in use lacks the permission",
    429: "too many requests: wait, or log in for a higher limit",
}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MissingFile(HubError):
    """The repository, or in offline mode the cache, has no such file."""


@dataclass(frozen=True)
class HubRepo:
    """A repository of the Hub at a revision, read through the client's cache."""

    name: str  # org/name
    revision: str
    cache_dir: Path | str | None = None
    offline: bool = False

    @classmethod
    def parse(
        cls,
        location: str,
        revision: str | None = None,
        cache_dir: Path | str | None = None,
        offline: bool = False,
    ) -> "HubRepo":
        """Parse `hf:org/repo[@revision]`, by default at `main`. Raises `UnknownName`."""
        match = re.fullmatch(rf"hf:({REPO})(?:@(\S+))?", location, re.ASCII)
        if match is None:
            raise UnknownName(f"{location!r} is not hf:org/repo or hf:org/repo@revision")
        if revision and match[2]:
            raise UnknownName(
                f"{location!r} names a revision already; leave out revision={revision!r}"
            )
        return cls(match[1], revision or match[2] or "main", cache_dir, offline)

    def fetch(self, file: str) -> Path:
        """Return the path of a file in the cache, downloaded if need be.

        Only its size has been checked. Raises `HubError`, `MissingFile` where there is no such
        file, and `WeightsError` for a link that leaves the cache.
        """
        cache = _cache(self.cache_dir)
        with _explained(f"{file} of {self.name} at {self.revision}", cache, offline=self.offline):
            path = self._cached(file, cache) or self._downloaded(file, cache)
        target = path.resolve()
        if not target.is_relative_to(cache.resolve()):
            raise WeightsError(
                f"{path} is a link to {target}, outside of the cache: delete it, and load it again"
            )
        return path

    def _cached(self, file: str, cache: Path) -> Path | None:
        """Return a cached file of a commit, which is found without asking the Hub.

        The downloader answers the same, but prepares a request before it looks.
        """
        from huggingface_hub import try_to_load_from_cache

        if not re.fullmatch(COMMIT, self.revision):
            return None
        path = try_to_load_from_cache(self.name, file, cache, self.revision)
        return Path(path) if isinstance(path, str) else None

    def _downloaded(self, file: str, cache: Path) -> Path:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(
            self.name,
            file,
            revision=self.revision,
            cache_dir=cache,
            local_files_only=self.offline,
            library_name=LIBRARY_NAME,
        )
        return Path(path)


def check_repo(repo: str) -> None:
    """Raise `HubError` for what cannot be the name of a repository."""
    if not re.fullmatch(REPO, repo, re.ASCII):
        raise HubError(f"{repo!r} is not a repository of the Hub: expected org/name")


def push(
    files: Mapping[str, Path],
    repo: str,
    *,
    message: str,
    private: bool = False,
    space: bool = False,
) -> str:
    """Publish files in one commit to a repository, new or ours, and return the commit's sha.

    `files` maps names in the repository to local files. The repository is a model, or a static
    `space`, which shows its index.html. Raises `HubError` where the Hub does not take them; then
    nothing of them is in the repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, is_offline_mode

    check_repo(repo)
    if is_offline_mode():
        raise HubError(f"publishing to {repo} needs the Hub: unset HF_HUB_OFFLINE")
    for name, path in files.items():
        if not path.is_file():
            raise HubError(f"{path} is not a file: {name} cannot be published")
    with _explained(f"publishing to {repo}", _cache(None)):
        api = HfApi(library_name=LIBRARY_NAME)
        kind, sdk = ("space", "static") if space else ("model", None)
        api.create_repo(repo, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        commit = api.create_commit(repo, operations, commit_message=message, repo_type=kind)
        return str(commit.oid)


def _cache(cache_dir: Path | str | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


@contextmanager
def _explained(what: str, cache: Path, *, offline: bool = False) -> Iterator[None]:
    """Turn the client's errors into a `HubError` of one line.

    It says what was asked for (`what`), what went wrong, and what to do.
    """
    from huggingface_hub import errors, is_offline_mode
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP library

    try:
        yield
    except errors.RevisionNotFoundError:
        raise HubError(
            f"{what}: there is no such revision; name a branch, a tag or a commit"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise MissingFile(
            f"{what}: the repository has no such file, so it is no model in the zoo's layout"
        ) from None
    except errors.GatedRepoError:
        raise HubError(
            f"{what}: access is gated; ask for it on the repository's page, then log in or set "
            "HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{what}: no such repository, or a private one; check its name, log in or set HF_TOKEN"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        not_cached = f"{what} is not in the cache {cache}, and"
        if offline or is_offline_mode():
            reason = "offline nothing is fetched: load it once online"
            raise MissingFile(f"{not_cached} {reason}") from None
        raise HubError(f"{not_cached} {_reason(error.__cause__ or error)}") from None
    except (HTTPError, errors.HFValidationError) as error:
        raise HubError(f"{what}: {_reason(error)}") from None
    except RuntimeError as error:  # a file that could not be uploaded
        raise HubError(f"{what}: {_reason(error.__cause__ or error)}") from None
    except ValueError as error:  # a card whose metadata the Hub refuses
        raise HubError(f"{what}: {one_line(error)}") from None
    except OSError as error:
        reason = _reason(error) if error.errno is None else _file_system_reason(error, cache)
        raise HubError(f"{what}: {reason}") from None


def _reason(error: BaseException) -> str:
    """Say what went wrong between the client and the Hub, and what to do."""
    response = getattr(error, "response", None)
    if response is None:
        return f"the connection failed ({type(error).__name__}: {one_line(error)}); try again"
    status = response.status_code
    advice = "try again later" if status >= 500 else ADVICE.get(status) or first_line(error)
    return f"the Hub answers {status}: {advice}"


def _file_system_reason(error: OSError, cache: Path) -> str:
    """Say why the cache cannot be written or read, and what to do."""
    advice = "free some space, or choose" if error.errno in NO_SPACE else "choose"
    return (
        f"{error.filename or cache}: {error.strerror}; "
        f"{advice} another cache (cache_dir, or HF_HOME)"
    )

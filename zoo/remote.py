"""One repository of the Hub through its own client, `huggingface_hub`: fetch a file, publish files,
and errors of one line.

Cache, token, endpoint, offline mode and progress bars are the client's: `HF_HOME`, `HF_TOKEN`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import HubError, UnknownName, WeightsError
from zoo.manifest import COMMIT, REPO

__all__ = ["HubRepo", "NotThere", "check_repo", "push"]


LIBRARY = "danet-zoo"  # how the client introduces itself


class NotThere(HubError):
    """The repository, or in offline mode the cache, has no such file."""


@dataclass(frozen=True)
class HubRepo:
    """A repository of the Hub at a revision, read through the client's cache."""

    repo: str
    revision: str
    cache_dir: Path | str | None = None
    offline: bool = False

    @classmethod
    def parse(
        cls, name: str, revision: str | None, cache_dir: Path | str | None, offline: bool
    ) -> "HubRepo":
        """`hf:org/repo[@revision]`. Raises `UnknownName`."""
        match = re.fullmatch(rf"hf:({REPO})(?:@(\S+))?", name, re.ASCII)
        if match is None:
            raise UnknownName(f"{name!r} is not hf:org/repo or hf:org/repo@revision")
        if revision and match[2]:
            raise UnknownName(f"{name!r} names a revision already; leave out revision={revision!r}")
        return cls(match[1], revision or match[2] or "main", cache_dir, offline)

    def fetch(self, file: str) -> Path:
        """The file in the cache, downloaded if need be. Only its size has been checked. Raises
        `HubError`.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cache = _cache(self.cache_dir)
        with _explained(f"{file} of {self.repo} at {self.revision}", cache, offline=self.offline):
            # The downloader answers the same for a commit, but prepares to ask the Hub before it
            # looks.
            pinned = re.fullmatch(COMMIT, self.revision)
            path = pinned and try_to_load_from_cache(self.repo, file, cache, self.revision)
            if not isinstance(path, str):
                path = hf_hub_download(
                    self.repo,
                    file,
                    revision=self.revision,
                    cache_dir=cache,
                    local_files_only=self.offline,
                    library_name=LIBRARY,
                )
        found = Path(path)
        if not found.resolve().is_relative_to(cache.resolve()):
            raise WeightsError(
                f"{found} is a link to {found.resolve()}, outside of the cache: delete it, and load it again"
            )
        return found


def check_repo(repo: str) -> None:
    """Raises `HubError` for what cannot be the name of a repository."""
    if not re.fullmatch(REPO, repo, re.ASCII):
        raise HubError(f"{repo!r} is not a repository of the Hub: expected org/name")


def push(files: Mapping[str, Path], repo: str, *, message: str, private: bool = False) -> str:
    """Publish `files` (name in the repository -> local file) in one commit to a repository, new or
    ours; the commit's sha.

    Raises `HubError` where the Hub does not take them; then nothing of them is in the repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_repo(repo)
    for name, path in files.items():
        if not path.is_file():
            raise HubError(f"{path} is not a file: {name} cannot be published")
    with _explained(f"publishing to {repo}", _cache(None)):
        api = HfApi(library_name=LIBRARY)
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        return str(api.create_commit(repo, operations, commit_message=message).oid)


def _cache(cache_dir: Path | str | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


@contextmanager
def _explained(what: str, cache: Path, *, offline: bool = False) -> Iterator[None]:
    """Errors of the client as one line: what was asked for, what went wrong, what to do."""
    from huggingface_hub import errors, is_offline_mode
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP library, whichever that is

    try:
        yield
    except errors.RevisionNotFoundError:
        raise HubError(
            f"{what}: there is no such revision; name a branch, a tag or a commit"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise NotThere(
            f"{what}: the repository has no such file, so it is no model in the zoo's layout"
        ) from None
    except errors.GatedRepoError:
        raise HubError(
            f"{what}: access is gated; ask for it on the repository's page, then log in or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{what}: no such repository, or a private one; check its name, log in or set HF_TOKEN"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if offline or is_offline_mode():
            raise NotThere(
                f"{what} is not in the cache {cache}, and offline nothing is fetched: load it once online"
            ) from None
        raise HubError(
            f"{what} is not in the cache {cache}, and {_why(error.__cause__ or error)}"
        ) from None
    except (HTTPError, errors.HFValidationError) as error:
        raise HubError(f"{what}: {_why(error)}") from None
    except RuntimeError as error:  # a file that could not be uploaded
        raise HubError(f"{what}: {_why(error.__cause__ or error)}") from None
    except ValueError as error:  # a card whose metadata the Hub refuses
        raise HubError(f"{what}: {_line(error)}") from None
    except OSError as error:
        if error.errno is None:  # the client's own
            raise HubError(f"{what}: {_why(error)}") from None
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space, or choose" if full else "choose"
        said = f"{error.filename or cache}: {error.strerror}; {advice} another cache (cache_dir, or HF_HOME)"
        raise HubError(f"{what}: {said}") from None


def _why(error: BaseException) -> str:
    """What went wrong between the client and the Hub, and what to do."""
    response = getattr(error, "response", None)
    if response is None:
        return f"the connection failed ({type(error).__name__}: {_line(error)}); try again"
    advice = {
        401: "log in or set a valid HF_TOKEN",
        403: "the token in use lacks the permission",
        429: "too many requests: wait, or log in for a higher limit",
    }
    status = response.status_code
    return f"the Hub answers {status}: {advice.get(status, 'try again later' if status >= 500 else str(error).partition(chr(10))[0])}"


def _line(error: BaseException) -> str:
    """The beginning of a message, in one line."""
    return " ".join(str(error).split())[:300]

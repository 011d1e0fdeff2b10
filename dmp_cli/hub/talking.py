"""What goes wrong between this machine and the hub, in one sentence each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import DMPError


@contextlib.contextmanager
def explaining_hub(what: str, kind: type[DMPError] = DMPError) -> Iterator[None]:
    """Context in which what the hub's library raises becomes an error of ``kind`` that names ``what``."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    access = "Log in by `hf auth login`, or set HF_TOKEN to a token that may do this."
    try:
        yield
    except DMPError:
        raise
    except OfflineModeIsEnabled as error:
        raise kind(f"{what}: the hub is not asked, as HF_HUB_OFFLINE is set", hint="Unset it.") from error
    except (GatedRepoError, LocalTokenNotFoundError) as error:
        raise kind(f"{what}: the hub wants to know who asks", hint=access) from error
    except RevisionNotFoundError as error:
        raise kind(f"{what}: the hub has no such revision", hint="Check what stands behind the @.") from error
    except RepositoryNotFoundError as error:
        raise kind(f"{what}: the hub shows no such repository", hint=f"Check its name. {access}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = access if status in (401, 403) else "Try again later."
        raise kind(f"{what}: the hub answered {_first_line(error)}", hint=hint) from error
    except (OSError, ValueError, RuntimeError) as error:  # no network, a name that cannot be one, a broken answer
        raise kind(f"{what}: {_first_line(error)}", hint="Check the name, the network and HF_ENDPOINT.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise
        raise kind(f"{what}: the hub cannot be reached: {_first_line(error)}", hint="Check the network.") from error


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

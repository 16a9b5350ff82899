//! The outcome of a health check.

use std::borrow::Cow;

/// The outcome of one check of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// The host failed.
    Failed {
        how: Failing,
        cause: Cow<'static, str>,
    },
    /// The check could not be made, because of the gateway: it tells nothing about the host.
    Unmade,
}

/// The effect of a failed check on a healthy host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// The host answered that it is unhealthy, and is at once.
    AtOnce,
    /// The host answered with a status that counts towards the threshold.
    Counted,
    /// There was no answer; this counts towards the threshold.
    Network,
}

impl Outcome {
    /// The host answered, and is unhealthy at once.
    pub(super) fn refused(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed { how: Failing::AtOnce, cause: cause.into() }
    }

    /// There was no answer.
    pub(super) fn unanswered(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed { how: Failing::Network, cause: cause.into() }
    }
}

//! Causes of a reload.

/// Why a reload happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// An object was written over the API.
    Api,
    /// Over the control socket.
    Asked {
        /// What is gone is meant to be.
        allow_removal: bool,
    },
    Files,
    Signal,
}

impl Cause {
    /// As `GET /reloads` has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Asked { .. } => "asked",
            Self::Files => "files",
            Self::Signal => "signal",
        }
    }

    /// For the log.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Api => "an object was written over the API",
            Self::Asked { allow_removal: false } => "the control socket was asked to",
            Self::Asked { allow_removal: true } => {
                "the control socket was asked to, removals allowed"
            }
            Self::Files => "files have changed",
            Self::Signal => "of SIGHUP",
        }
    }
}

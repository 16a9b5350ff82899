//! Causes of a load.

/// Why files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadCause {
    /// An object was written over the API.
    Api,
    /// Somebody asked over the control socket or at the admin address.
    Asked {
        /// What is missing in the files was removed on purpose.
        allow_removal: bool,
    },
    /// Files have changed.
    Files,
    /// SIGHUP.
    Signal,
    /// The process has started.
    Start,
}

impl LoadCause {
    /// As the log and `GET /reloads` have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Asked { .. } => "asked",
            Self::Files => "files",
            Self::Signal => "signal",
            Self::Start => "start",
        }
    }

    /// As the log has it when a load begins.
    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Api => "reloading for a change over the API",
            Self::Asked { allow_removal: false } => "reloading as asked",
            Self::Asked { allow_removal: true } => "reloading as asked, removals allowed",
            Self::Files => "reloading changed files",
            Self::Signal => "reloading on SIGHUP",
            Self::Start => "loading",
        }
    }

    pub(super) fn allows_removal(self) -> bool {
        self == Self::Asked { allow_removal: true }
    }
}

//! Causes of a load.

/// The reason for reading the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadCause {
    /// An object was written over the API.
    Api,
    /// A request to the control socket or the admin address.
    Asked {
        /// True if objects that are missing in the files were removed on purpose.
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
    /// The name in the log and in `GET /reloads`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Asked { .. } => "asked",
            Self::Files => "files",
            Self::Signal => "signal",
            Self::Start => "start",
        }
    }

    /// The log message at the beginning of a load.
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

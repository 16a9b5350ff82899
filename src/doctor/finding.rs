//! The result of one check, and the command that repairs a fault.

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub rating: Rating,
    /// The subject of the check, in one or two words.
    pub check: String,
    /// The result, in one line.
    pub what: String,
    /// The command that repairs the fault, or advice if there is no such command.
    pub repair: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rating {
    Ok,
    /// Possibly a fault, or not visible to this user.
    Warn,
    /// Some clients are not served, or will not be.
    Fail,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { rating: Rating::Ok, check: check.into(), what: what.into(), repair: None }
    }

    pub(super) fn warn(
        check: impl Into<String>,
        what: impl Into<String>,
        repair: impl Into<Option<String>>,
    ) -> Self {
        let (check, what, repair) = (check.into(), what.into(), repair.into());
        Self { rating: Rating::Warn, check, what, repair }
    }

    pub(super) fn fail(
        check: impl Into<String>,
        what: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        let (check, what, repair) = (check.into(), what.into(), Some(repair.into()));
        Self { rating: Rating::Fail, check, what, repair }
    }
}

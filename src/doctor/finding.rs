//! One thing that was examined, and how to mend it.

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub verdict: Verdict,
    /// What was looked at, in a word or two.
    pub check: String,
    /// One line.
    pub what: String,
    /// A command, or what to do where there is none.
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Ok,
    /// It may be right, or could not be seen.
    Warn,
    /// Somebody is not served, or will not be.
    Fail,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, check: check.into(), what: what.into(), mend: None }
    }

    pub(super) fn warn(
        check: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<Option<String>>,
    ) -> Self {
        let (check, what, mend) = (check.into(), what.into(), mend.into());
        Self { verdict: Verdict::Warn, check, what, mend }
    }

    pub(super) fn fail(
        check: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let (check, what, mend) = (check.into(), what.into(), Some(mend.into()));
        Self { verdict: Verdict::Fail, check, what, mend }
    }
}

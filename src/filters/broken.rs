//! The filter in place of one that could not be built.

use std::fmt::{self, Display, Formatter};

use http::request;

use crate::failure::Failure;
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Refuses every request. HTTPRoute `filters`: a filter that cannot run must not be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("answer 500")
    }
}

impl HttpFilter for Broken {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn apply(&self, _: &mut Exchange, _: &mut request::Parts) -> Verdict {
        Verdict::Break(Stop::Refuse(Failure::FilterInvalid))
    }
}

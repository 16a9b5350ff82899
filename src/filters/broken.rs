//! The filter in place of one that could not be built.

use std::fmt::{self, Display, Formatter};

use http::{StatusCode, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};
use crate::stats::ResponseFlag;

/// Refuses every request. HTTPRoute `filters`: a filter that cannot run must not be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Broken {
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        flag: Some(ResponseFlag::LocalReset),
        details: "filter_invalid",
        text: "the route for this request is not usable\n",
        grpc_status: None,
    };
}

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
        Verdict::Break(Stop::Refuse(Failure::Denied(Self::DENIAL)))
    }
}

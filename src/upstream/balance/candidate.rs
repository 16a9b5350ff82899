//! A member of a cluster that a request may try.

use std::ops::Deref;
use std::sync::Arc;

use crate::upstream::member::Member;

/// A member of the cluster that a request may try next.
#[derive(Clone, Debug)]
pub(in crate::upstream) enum Candidate<'a> {
    /// Borrowed: a request changes no count that other workers use.
    Fixed(&'a Member),
    /// The addresses of the name may change while the request is sent.
    Named(Arc<Member>),
}

impl Deref for Candidate<'_> {
    type Target = Member;

    fn deref(&self) -> &Member {
        match self {
            Self::Fixed(member) => member,
            Self::Named(member) => member,
        }
    }
}

//! The parts of a request that select its endpoint.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use http::HeaderName;

/// The `loadBalancer` of a BackendTrafficPolicy, as far as the requests of a rule decide on their
/// hosts. The policy itself is in the settings of the clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balancing {
    /// `NAMESPACE/NAME` of the BackendTrafficPolicy.
    pub policy: Box<str>,
    /// The type of the load balancer, as written.
    pub kind: &'static str,
    /// `None` if requests are not hashed.
    pub hash: Option<HashInput>,
    /// Header fields in which a request may name its endpoints, in order.
    pub overrides: Box<[HeaderName]>,
}

/// The part of a request that is hashed: requests with the same value go to the same host. One
/// without the part goes to a random host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashInput {
    Cookie(HashCookie),
    /// All of them together.
    Headers(Box<[HashHeader]>),
    /// The first value of each, all of them together.
    QueryParams(Box<[Box<str>]>),
    /// The address of the client.
    SourceIp,
}

/// A header field, or a part of the request line by its name in HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashHeader {
    /// `:authority`.
    Authority,
    Field(HeaderName),
}

/// A cookie that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HashCookie {
    pub name: Box<str>,
    /// The lifetime of the cookie that a client without one gets; zero for a session cookie. `None`
    /// if the gateway sets no cookie.
    pub ttl: Option<Duration>,
    /// The attributes of that cookie: `; SameSite=Lax; Secure`.
    pub attributes: Box<str>,
}

impl Display for Balancing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(hash) = &self.hash {
            write!(f, " by {hash}")?;
        }
        for (place, name) in self.overrides.iter().enumerate() {
            let before = if place == 0 { ", or the endpoint in header" } else { " or" };
            write!(f, "{before} {name}")?;
        }
        write!(f, ", of policy {}", self.policy)
    }
}

impl Display for HashInput {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceIp => f.write_str("client address"),
            Self::Cookie(HashCookie { name, ttl, attributes }) => {
                write!(f, "cookie {name}")?;
                match ttl {
                    None => Ok(()),
                    Some(Duration::ZERO) => write!(f, ", set for a session{attributes}"),
                    Some(ttl) => write!(f, ", set for {ttl:?}{attributes}"),
                }
            }
            Self::Headers(names) => {
                f.write_str("header")?;
                names.iter().try_for_each(|name| match name {
                    HashHeader::Authority => f.write_str(" :authority"),
                    HashHeader::Field(name) => write!(f, " {name}"),
                })
            }
            Self::QueryParams(names) => {
                f.write_str("query parameter")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
        }
    }
}

//! Session persistence: a client returns to the endpoint that it used before (GEP-1619).

mod token;

use std::time::SystemTime;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::clock;
use crate::downstream::SessionKey;
use crate::filters::exchange::Scheme;
use crate::snapshot::Choice;
use crate::snapshot::session::{Carrier, Session};
use crate::upstream::{Aim, Cluster, EndpointName};

use token::SessionToken;

/// Maximum number of cookies of a request that are tried. The rule's own cookie is among the first,
/// because a browser sends those of the longest path first.
const MAX_COOKIES: usize = 128;

/// The session of one request to a rule with session persistence.
#[derive(Debug)]
pub(super) struct RequestSession<'a> {
    session: &'a Session,
    key: &'a SessionKey,
    /// The path of the cookie; see [`tell`].
    path: Box<str>,
    now: SystemTime,
    /// The session that the client's token names.
    brought: Option<Brought<'a>>,
}

impl<'a> RequestSession<'a> {
    /// `fixed` is the part of the path that the rule's match fixes. If the client spells the path
    /// differently (`//a`), no part of it is used.
    pub(super) fn new(
        session: &'a Session,
        key: &'a SessionKey,
        written_path: &str,
        fixed: &str,
    ) -> Self {
        let path = if written_path.starts_with(fixed) { fixed.into() } else { Box::default() };
        Self { session, key, path, now: clock::wall(), brought: None }
    }

    /// Reads the client's token from the head that goes to the backend.
    pub(super) fn look_up(&mut self, headers: &HeaderMap) {
        self.brought = brought(self.session, self.key, headers, self.now);
    }

    /// Returns the backend of the client's session.
    pub(super) fn choice(&self) -> Option<&'a Choice> {
        self.brought.as_ref().map(|brought| brought.choice)
    }

    /// Returns the aim for the request: the endpoint of the client's session, if it is available.
    pub(super) fn aim(&self) -> Aim {
        let prefer = self.brought.as_ref().map(|brought| brought.endpoint.clone());
        Aim { prefer, ..Aim::default() }
    }

    /// Adds the session token to the response, if the client has no session or had another
    /// endpoint.
    pub(super) fn tell(
        &self,
        sent_to: (&Cluster, Option<&EndpointName>),
        scheme: Scheme,
        headers: &mut HeaderMap,
    ) {
        let Self { session, key, path, now, brought } = self;
        tell(session, key, sent_to, brought.as_ref(), (scheme, path), *now, headers);
    }
}

/// An existing session that a request belongs to.
#[derive(Debug)]
struct Brought<'a> {
    choice: &'a Choice,
    endpoint: EndpointName,
}

/// Returns the session that a request's token names, if the token is valid and its backend is still
/// one of the rule's.
fn brought<'a>(
    session: &'a Session,
    key: &SessionKey,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Brought<'a>> {
    let open = |text: &[u8]| SessionToken::open(text, key, &session.scope);
    let token = match &session.carrier {
        Carrier::Cookie { name, .. } => cookies(headers, name).take(MAX_COOKIES).find_map(open)?,
        Carrier::Header(name) => open(headers.get(name)?.as_bytes())?,
    };
    if let Some(limit) = session.absolute_timeout
        && now.duration_since(token.since).is_ok_and(|age| age >= limit)
    {
        return None;
    }
    let choice = session.choices.iter().find(|choice| match choice {
        Choice::Cluster { cluster, .. } => *cluster.settings().name == *token.cluster,
        Choice::Invalid => false,
    })?;
    Some(Brought { choice, endpoint: EndpointName::parse(&token.endpoint)? })
}

/// Adds the session token to the response, if the client has no session or was sent to another
/// endpoint.
///
/// `path` is the part of the request's path that the rule's match fixes: the cookie applies to the
/// paths below it, as the rule does.
fn tell(
    session: &Session,
    key: &SessionKey,
    (cluster, endpoint): (&Cluster, Option<&EndpointName>),
    had: Option<&Brought<'_>>,
    (scheme, path): (Scheme, &str),
    now: SystemTime,
    headers: &mut HeaderMap,
) {
    let Some(endpoint) = endpoint else { return };
    if had.is_some_and(|had| had.endpoint == *endpoint) {
        return;
    }
    let cluster = cluster.settings().name.to_string();
    let token = SessionToken { cluster, endpoint: endpoint.to_string(), since: now };
    let Some(token) = token.seal(key, &session.scope) else { return };
    match &session.carrier {
        Carrier::Header(name) => {
            if let Ok(value) = HeaderValue::try_from(token) {
                headers.insert(name, value);
            }
        }
        Carrier::Cookie { name, permanent } => {
            let lifetime = match session.absolute_timeout.filter(|_| *permanent) {
                Some(lifetime) => format!("; Max-Age={}", lifetime.as_secs()),
                None => String::new(),
            };
            let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
            let path = cookie_path(path);
            let cookie =
                format!("{name}={token}; Path={path}{lifetime}{secure}; HttpOnly; SameSite=Lax");
            if let Ok(value) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, value);
            }
        }
    }
}

/// Returns the cookie's `Path`. It cannot contain a semicolon, and a browser compares it byte by
/// byte, so an escape would match only one spelling of the path. In these cases the parent folder
/// is used.
fn cookie_path(path: &str) -> &str {
    let path = match path.find([';', '%']) {
        Some(at) => &path[..path[..at].rfind('/').unwrap_or(0)],
        None => path,
    };
    if path.is_empty() { "/" } else { path }
}

/// Returns the values of the cookies of this name (RFC 6265 section 5.4; HTTP/2 may split the
/// field).
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        // (fields, values of `a`)
        let table: [(&[&str], &[&str]); 6] = [
            (&[], &[]),
            (&["a=1"], &["1"]),
            (&["b=2; a=1;c=3"], &["1"]),
            (&["aa=1; ba=2; A=3; a"], &[]),
            (&["a=1; a=2", "c=3", "a=3"], &["1", "2", "3"]),
            (&["a=x=y; b=a=2"], &["x=y"]),
        ];
        for (fields, want) in table {
            let headers: HeaderMap = fields
                .iter()
                .map(|field| (COOKIE, HeaderValue::from_str(field).unwrap()))
                .fold(HeaderMap::new(), |mut all, (name, value)| {
                    all.append(name, value);
                    all
                });
            let got: Vec<&[u8]> = cookies(&headers, "a").collect();
            let want: Vec<&[u8]> = want.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(got, want, "{fields:?}");
        }
    }

    #[test]
    fn a_path_fits_into_a_cookie() {
        let table = [
            ("", "/"),
            ("/a/b", "/a/b"),
            ("/a/b;c/d", "/a"),
            ("/;a", "/"),
            ("/a;b", "/"),
            ("/a/caf%C3%A9", "/a"),
            ("/%40scope/x", "/"),
        ];
        for (path, want) in table {
            assert_eq!(cookie_path(path), want, "{path}");
        }
    }
}

//! `cors` (GEP-1767).

use std::fmt::{self, Display, Formatter};

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};

use crate::body::Response;
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Which other origins may use the responses of a rule.
///
/// A preflight (Fetch standard, section 4.8) is answered here and never reaches a backend. Other
/// requests are forwarded whatever their origin; only the response headers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    pub origins: Box<[OriginPattern]>,
    pub credentials: bool,
    /// `None` where the list holds `*`: every method.
    pub methods: AllowList,
    pub headers: AllowList,
    pub expose: AllowList,
    /// Seconds a browser may keep the answer to a preflight; it decides itself where absent.
    pub max_age: Option<HeaderValue>,
}

/// A list of names as it is sent, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowList {
    /// `*`. With credentials a browser takes it literally, so what was asked for is echoed.
    Any,
    /// Not configured: the header is left out.
    Nothing,
    /// `GET, POST`, as configured.
    These(HeaderValue),
}

/// One entry of `allowOrigins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    /// `*`
    Any,
    /// `https://www.example.com:8080`, lower case.
    Exact(Box<str>),
    /// `https://*.example.com:8080` as the parts before and after the `*`; it stands for one label
    /// or more.
    Wildcard { before: Box<str>, after: Box<str> },
}

impl OriginPattern {
    fn accepts(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Wildcard { before, after } => {
                let origin = origin.to_ascii_lowercase();
                let middle =
                    origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                middle.is_some_and(|middle| !middle.is_empty() && !middle.contains(['/', ':', '@']))
            }
        }
    }
}

impl Display for Cors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("cors origins")?;
        for origin in &self.origins {
            match origin {
                OriginPattern::Any => f.write_str(" *")?,
                OriginPattern::Exact(origin) => write!(f, " {origin}")?,
                OriginPattern::Wildcard { before, after } => write!(f, " {before}*{after}")?,
            }
        }
        let lists =
            [("methods", &self.methods), ("headers", &self.headers), ("expose", &self.expose)];
        for (what, list) in lists {
            match list {
                AllowList::Any => write!(f, "; {what} *")?,
                AllowList::Nothing => {}
                AllowList::These(names) => {
                    write!(f, "; {what} {}", names.to_str().unwrap_or_default())?;
                }
            }
        }
        if self.credentials {
            f.write_str("; credentials")?;
        }
        let age = self.max_age.iter();
        age.map(|age| age.to_str().unwrap_or_default())
            .try_for_each(|age| write!(f, "; max age {age}"))
    }
}

impl HttpFilter for Cors {
    fn phase(&self) -> Phase {
        Phase::Admit
    }

    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        let mut origins = head.headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Verdict::Continue(()) };
        let allowed = origins.next().is_none()
            && origin
                .to_str()
                .is_ok_and(|origin| self.origins.iter().any(|pattern| pattern.accepts(origin)));
        if allowed {
            exchange.allowed_origin = Some(origin.clone());
        }
        let asked = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = head.method == Method::OPTIONS && asked.is_some_and(|of| !of.is_empty());
        if !preflight {
            return Verdict::Continue(());
        }
        let mut response = http::Response::new(bytes::Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        if allowed {
            self.permit(exchange, head, response.headers_mut());
        }
        Verdict::Break(Stop::Answer(response))
    }

    fn on_response(&self, exchange: &Exchange, response: &mut Response) {
        self.tell(exchange.allowed_origin.as_ref(), response.headers_mut());
    }

    /// A page that may read the response may read why there is none.
    fn on_failure(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        self.tell(exchange.allowed_origin.as_ref(), headers);
    }
}

impl Cors {
    /// What a preflight is told: methods, headers, age, beside what every response says.
    fn permit(&self, exchange: &Exchange, head: &request::Parts, to: &mut HeaderMap) {
        self.tell(exchange.allowed_origin.as_ref(), to);
        for (list, asked, told) in [
            (&self.methods, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
            (&self.headers, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            let Some(asked) = joined(&head.headers, &asked) else { continue };
            match list {
                AllowList::Any if self.credentials => to.insert(told, asked),
                AllowList::Any => to.insert(told, HeaderValue::from_static("*")),
                AllowList::These(names) => to.insert(told, names.clone()),
                AllowList::Nothing => None,
            };
        }
        if let Some(age) = &self.max_age {
            to.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
    }

    /// Writes what a response says to `origin`, which is one that is allowed, if there is one.
    ///
    /// Whoever asks and from wherever, it is said that the response depends on it (Fetch standard,
    /// "CORS protocol and HTTP caches"): a cache would give one origin the answer to another.
    fn tell(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        vary_by_origin(headers);
        // What the backend says of CORS does not count where the route has a policy.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        let Some(origin) = origin else { return };
        let any = self.origins.contains(&OriginPattern::Any) && !self.credentials;
        let told = if any { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, told);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        match &self.expose {
            AllowList::These(names) => {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
            }
            AllowList::Any if !self.credentials => {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
            }
            AllowList::Any | AllowList::Nothing => {}
        }
    }
}

/// What the answer to a preflight depends on.
const PREFLIGHT_VARIES: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Adds `Vary: Origin` where it is not said yet.
fn vary_by_origin(headers: &mut HeaderMap) {
    let lines = headers.get_all(VARY).iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let said = names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"origin")
    });
    if !said {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// A list as one value, on however many lines it came.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(first.clone()) };
    let mut all = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::testing;

    fn cors() -> Cors {
        Cors {
            origins: [
                OriginPattern::Exact("https://www.foo.com".into()),
                OriginPattern::Wildcard { before: "https://".into(), after: ".bar.com".into() },
            ]
            .into(),
            credentials: false,
            methods: AllowList::These(HeaderValue::from_static("GET, PUT")),
            headers: AllowList::Any,
            expose: AllowList::These(HeaderValue::from_static("x-total")),
            max_age: Some(HeaderValue::from_static("5")),
        }
    }

    fn ask(
        cors: &Cors,
        method: &str,
        headers: &[(&'static str, &'static str)],
    ) -> (Verdict, Exchange) {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let mut exchange = testing::exchange("api.example");
        (cors.apply(&mut exchange, &mut head), exchange)
    }

    #[test]
    fn an_origin_matches_whole_or_by_labels() {
        // (origin, allowed)
        let table = [
            ("https://www.foo.com", true),
            ("https://WWW.foo.com", true),
            ("http://www.foo.com", false),
            ("https://www.foo.com:8443", false),
            ("https://a.bar.com", true),
            ("https://a.b.bar.com", true),
            ("https://bar.com", false),
            ("https://evil.com/.bar.com", false),
            ("https://evil.com:80.bar.com", false),
            ("null", false),
        ];
        for (origin, want) in table {
            let allowed = cors().origins.iter().any(|pattern| pattern.accepts(origin));
            assert_eq!(allowed, want, "{origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_is_configured() {
        let (verdict, _) = ask(
            &cors(),
            "OPTIONS",
            &[
                ("origin", "https://www.foo.com"),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-a, x-b"),
            ],
        );
        let Verdict::Break(Stop::Answer(answer)) = verdict else {
            panic!("a preflight must be answered")
        };
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://www.foo.com");
        assert_eq!(answer.headers()["access-control-allow-methods"], "GET, PUT");
        assert_eq!(answer.headers()["access-control-allow-headers"], "*");
        assert_eq!(answer.headers()["access-control-expose-headers"], "x-total");
        assert_eq!(answer.headers()["access-control-max-age"], "5");
        assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn with_credentials_nothing_is_a_star() {
        let cors = Cors {
            credentials: true,
            origins: [OriginPattern::Any].into(),
            methods: AllowList::Any,
            ..cors()
        };
        let (verdict, _) = ask(
            &cors,
            "OPTIONS",
            &[
                ("origin", "https://x.example"),
                ("access-control-request-method", "DELETE"),
                ("access-control-request-headers", "x-a"),
            ],
        );
        let Verdict::Break(Stop::Answer(answer)) = verdict else {
            panic!("a preflight must be answered")
        };
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://x.example");
        assert_eq!(answer.headers()["access-control-allow-methods"], "DELETE");
        assert_eq!(answer.headers()["access-control-allow-headers"], "x-a");
        assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
    }

    #[test]
    fn a_foreign_origin_is_forwarded_and_told_nothing() {
        let (verdict, exchange) = ask(&cors(), "GET", &[("origin", "https://evil.com")]);
        assert!(verdict.is_continue());
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        cors().on_failure(&exchange, &mut headers);
        assert_eq!((headers.len(), &headers["vary"]), (1, &HeaderValue::from_static("Origin")));

        let (verdict, _) = ask(
            &cors(),
            "OPTIONS",
            &[("origin", "https://evil.com"), ("access-control-request-method", "PUT")],
        );
        let Verdict::Break(Stop::Answer(answer)) = verdict else {
            panic!("a preflight must be answered")
        };
        assert_eq!(answer.headers().len(), 1, "{answer:?}");
        assert_eq!(answer.headers()["vary"], PREFLIGHT_VARIES);
    }

    #[test]
    fn every_response_says_that_it_depends_on_the_origin() {
        let any = Cors { origins: [OriginPattern::Any].into(), ..cors() };
        let (ours, theirs) = ("https://www.foo.com", "https://evil.com");
        // (filter, Origin, Vary of the backend, Vary of the response)
        type Row =
            (Cors, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
        let table: [Row; 9] = [
            (cors(), &[], &[], &["Origin"]),
            (cors(), &["https://www.foo.com"], &[], &["Origin"]),
            (cors(), &["https://evil.com"], &[], &["Origin"]),
            (any.clone(), &[], &[], &["Origin"]),
            (any, &["https://evil.com"], &[], &["Origin"]),
            (cors(), &[], &["Accept"], &["Accept", "Origin"]),
            (cors(), &[], &["Accept, origin"], &["Accept, origin"]),
            (cors(), &[], &["Accept", "ORIGIN"], &["Accept", "ORIGIN"]),
            (cors(), &[], &["*"], &["*"]),
        ];
        for (cors, origins, backend, want) in table {
            let sent: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
            let (_, exchange) = ask(&cors, "GET", &sent);
            let mut headers = HeaderMap::new();
            for line in backend {
                headers.append(VARY, HeaderValue::from_static(line));
            }
            cors.on_failure(&exchange, &mut headers);
            let got: Vec<_> = headers.get_all(VARY).iter().collect();
            assert_eq!(got, want, "{origins:?} {backend:?}");
        }
        // One request has one origin.
        let (_, exchange) = ask(&cors(), "GET", &[("origin", ours), ("origin", theirs)]);
        assert_eq!(exchange.allowed_origin, None);
    }

    #[test]
    fn a_list_on_several_lines_is_one_list() {
        let cors = Cors { credentials: true, ..cors() };
        let (verdict, _) = ask(
            &cors,
            "OPTIONS",
            &[
                ("origin", "https://www.foo.com"),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-a"),
                ("access-control-request-headers", "x-b"),
            ],
        );
        let Verdict::Break(Stop::Answer(answer)) = verdict else {
            panic!("a preflight must be answered")
        };
        assert_eq!(answer.headers()["access-control-allow-headers"], "x-a, x-b");
        let (verdict, _) = ask(
            &cors,
            "OPTIONS",
            &[("origin", "https://www.foo.com"), ("access-control-request-method", "")],
        );
        assert!(verdict.is_continue(), "no method is asked for");
    }
}

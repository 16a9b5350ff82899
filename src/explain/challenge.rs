//! HTTP-01 challenges, which certbot's webroot answers ahead of every route.

use std::io::ErrorKind;
use std::path::Path;

use http::{Method, request};

use crate::filters::exchange::path_of;
use crate::proxy;
use crate::snapshot::Bind;

use super::{Answer, Explained, Lost};

/// The answer to a challenge, as `proxy/http.rs` gives it. Where a challenge is not answered, and so
/// goes on to the routes, why not.
pub(super) fn look(
    bind: &Bind,
    webroot: &Path,
    head: &request::Parts,
    told: &mut Explained,
) -> Result<(), Answer> {
    let Some(token) = proxy::acme_token(path_of(&head.uri)) else { return Ok(()) };
    let mut goes_on = |why: String| {
        told.lost.push(Lost { what: "HTTP-01 challenge".into(), why });
        Ok(())
    };
    if bind.tls {
        return goes_on("answered on HTTP listeners alone; an authority asks by http first".into());
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return goes_on("only GET and HEAD ask for one".into());
    }
    let file = webroot.join(".well-known/acme-challenge").join(token);
    let file = file.display();
    match proxy::acme_challenge(webroot, token) {
        Ok(content) => Err(Answer {
            status: 200,
            headers: vec!["content-type: text/plain".into()],
            why: format!(
                "an HTTP-01 challenge is answered ahead of every route, with {file}: {}",
                String::from_utf8_lossy(&content).trim_end().escape_debug()
            ),
            ..Answer::default()
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            goes_on(format!("there is no {file}, so the routes are asked"))
        }
        Err(error) => goes_on(format!("{file} cannot be read ({error}), so the routes are asked")),
    }
}

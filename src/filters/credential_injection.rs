//! `credentialInjection` of an HTTPRouteFilter.

use std::fmt::{self, Display, Formatter};

use http::{HeaderName, HeaderValue, request};

use crate::filters::{Exchange, HttpFilter, Phase, Verdict};

/// Sends a credential to the backend. Envoy Gateway's `HTTPCredentialInjectionFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CredentialInjection {
    pub header: HeaderName,
    /// Sensitive, so that neither `Debug` nor a page shows it.
    credential: HeaderValue,
    /// False: a header that the client sent stays, and the credential does not go out.
    pub overwrite: bool,
}

impl CredentialInjection {
    /// `None` if no header can hold the credential. Line ends behind it do not belong to it: editors
    /// and `kubectl create secret --from-file` leave them there.
    pub(crate) fn new(header: HeaderName, credential: &[u8], overwrite: bool) -> Option<Self> {
        let end = credential.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'))? + 1;
        let mut credential = HeaderValue::from_bytes(&credential[..end]).ok()?;
        credential.set_sensitive(true);
        Some(Self { header, credential, overwrite })
    }
}

impl Display for CredentialInjection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kept = if self.overwrite { "" } else { " where the client sent none" };
        write!(f, "set request header {}: [redacted]{kept}", self.header)
    }
}

impl HttpFilter for CredentialInjection {
    fn phase(&self) -> Phase {
        Phase::Rewrite
    }

    fn apply(&self, _: &mut Exchange, head: &mut request::Parts) -> Verdict {
        if self.overwrite || !head.headers.contains_key(&self.header) {
            head.headers.insert(&self.header, self.credential.clone());
        }
        Verdict::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::filters::testing;

    #[test]
    fn a_client_keeps_its_own_header_unless_that_is_overwritten() {
        // (overwrite, sent by the client, sent to the backend)
        let table: [(_, &[&str], &[&str]); 5] = [
            (false, &[], &["Bearer ours"]),
            (true, &[], &["Bearer ours"]),
            (false, &["Bearer theirs"], &["Bearer theirs"]),
            (true, &["Bearer theirs"], &["Bearer ours"]),
            (true, &["Bearer theirs", "Basic eA=="], &["Bearer ours"]),
        ];
        for (overwrite, sent, want) in table {
            let filter = CredentialInjection::new(AUTHORIZATION, b"Bearer ours", overwrite);
            let (mut exchange, mut head) = (testing::exchange("shop.test"), testing::head("/"));
            for value in sent {
                head.headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            let verdict = filter.unwrap().apply(&mut exchange, &mut head);
            assert!(verdict.is_continue());
            let got: Vec<_> = head.headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(got, want, "{overwrite} {sent:?}");
        }
    }

    #[test]
    fn a_credential_is_one_line_and_never_printed() {
        // (value of the Secret, what is sent)
        let table: [(&[u8], Option<&str>); 7] = [
            (b"Bearer hunter2", Some("Bearer hunter2")),
            (b"Bearer hunter2\n", Some("Bearer hunter2")),
            (b"Bearer hunter2\r\n\n", Some("Bearer hunter2")),
            (b"Bearer hunter2\nX-Evil: 1", None),
            (b"Bearer hunter2\0", None),
            (b"\n", None),
            (b"", None),
        ];
        for (value, want) in table {
            let filter = CredentialInjection::new(AUTHORIZATION, value, false);
            let words = filter.as_ref().map(ToString::to_string).unwrap_or_default();
            let printed = format!("{filter:?} {words}");
            assert!(!printed.contains("hunter2"), "{printed}");
            let got = filter.map(|filter| filter.credential.to_str().unwrap().to_owned());
            assert_eq!(got.as_deref(), want, "{}", String::from_utf8_lossy(value));
        }
    }
}

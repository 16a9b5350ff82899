//! Names of the negotiated TLS version and cipher suite, for logs and metrics.

use rustls::{CipherSuite, CommonState, ProtocolVersion};

/// Returns `TLSv1.2` or `TLSv1.3`.
pub(crate) fn version(session: &CommonState) -> &'static str {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// Returns OpenSSL's name of the cipher suite, as in Envoy's metrics.
pub(crate) fn cipher(session: &CommonState) -> &'static str {
    session.negotiated_cipher_suite().map_or("", |suite| name(suite.suite()))
}

fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::CIPHERS;

    #[test]
    fn every_cipher_that_may_be_agreed_on_is_counted() {
        let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
        for suite in suites {
            assert!(CIPHERS.contains(&name(suite.suite())), "{suite:?}");
        }
        assert_eq!(suites.len(), CIPHERS.len());
    }
}

//! Health settings for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use crate::upstream::health::settings::{
    ActiveCheck, HealthSettings, HttpProbe, PassiveCheck, Probe,
};

/// Returns a check of `/health` every 3 s, with the defaults of the CRD.
pub(in crate::upstream) fn active() -> ActiveCheck {
    ActiveCheck {
        probe: Probe::Http(Box::new(http_probe())),
        interval: Duration::from_secs(3),
        timeout: Duration::from_secs(1),
        initial_jitter: Duration::ZERO,
        unhealthy_threshold: 3,
        healthy_threshold: 1,
        port: None,
        authority: None,
        own_authorities: BTreeMap::new(),
    }
}

pub(in crate::upstream) fn http_probe() -> HttpProbe {
    HttpProbe {
        http2: false,
        method: Method::GET,
        path: PathAndQuery::from_static("/health"),
        body: Bytes::new(),
        expected: [StatusCode::OK].into(),
        retriable: Box::default(),
        receive: Bytes::new(),
    }
}

pub(in crate::upstream) fn settings(active: Option<ActiveCheck>) -> HealthSettings {
    HealthSettings { backend: "backend/default/a".into(), active, passive: None }
}

/// Returns outlier detection that ejects a host after 3 errors, with other defaults of the CRD.
pub(in crate::upstream) fn passive() -> PassiveCheck {
    PassiveCheck {
        errors: Some(3),
        gateway_errors: None,
        local_failures: None,
        failure_percentage: None,
        interval: Duration::from_secs(3),
        base_ejection: Duration::from_secs(30),
        max_percent: 10,
        always_one: false,
        may_eject_all: false,
    }
}

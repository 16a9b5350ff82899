//! The access log in Envoy Gateway's default format, for log processors.
//!
//! Keys and types are those of Envoy's typed JSON: a number there is a number here, the value of a
//! header is a string, and an unknown value is null. Keys are in alphabetical order, as in Envoy.

use super::record::{
    AccessRecord, HOST_BYTES, METHOD_BYTES, REQUEST_ID_BYTES, TARGET_BYTES, USER_AGENT_BYTES, cut,
};
use super::redact;
use super::text::{self, Stamp};

impl AccessRecord<'_> {
    /// Writes one JSON object and a newline.
    pub(super) fn envoy(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        out.extend_from_slice(b"{\":authority\":\"");
        redact::host(out, cut(self.host, HOST_BYTES), text::json);
        out.extend_from_slice(b"\",\"bytes_received\":");
        text::number(out, self.request_bytes);
        out.extend_from_slice(b",\"bytes_sent\":");
        text::number(out, self.response_bytes);
        out.extend_from_slice(b",\"connection_termination_details\":null");
        out.extend_from_slice(b",\"downstream_local_address\":");
        json_or_null(out, self.local, text::socket_address);
        out.extend_from_slice(b",\"downstream_remote_address\":\"");
        text::socket_address(out, (self.client, self.peer.port()).into());
        out.extend_from_slice(b"\",\"duration\":");
        text::number(out, text::whole_millis(self.duration));
        out.extend_from_slice(b",\"method\":\"");
        text::json(out, cut(self.method, METHOD_BYTES));
        out.extend_from_slice(b"\",\"protocol\":\"");
        out.extend_from_slice(self.protocol.as_bytes());
        out.extend_from_slice(b"\",\"requested_server_name\":");
        json_or_null(out, self.sni, |out, name| text::json(out, name.as_bytes()));
        out.extend_from_slice(b",\"response_code\":");
        text::number(out, self.status.into());
        out.extend_from_slice(b",\"response_code_details\":");
        json_or_null(out, self.details, |out, details| out.extend_from_slice(details.as_bytes()));
        out.extend_from_slice(b",\"response_flags\":\"");
        out.extend_from_slice(self.flags.short().as_bytes());
        out.extend_from_slice(b"\",\"route_name\":");
        json_or_null(out, self.route, |out, route| text::json(out, route.as_bytes()));
        out.extend_from_slice(b",\"start_time\":\"");
        stamp.write(out, self.began());
        out.extend_from_slice(b"\",\"upstream_cluster\":");
        json_or_null(out, self.upstream_cluster(), |out, cluster| {
            text::json(out, cluster.as_bytes());
        });
        out.extend_from_slice(b",\"upstream_host\":");
        json_or_null(out, self.upstream, |out, upstream| upstream.write(out, text::json));
        out.extend_from_slice(b",\"upstream_local_address\":null");
        out.extend_from_slice(b",\"upstream_transport_failure_reason\":null,\"user-agent\":");
        json_or_null(out, self.user_agent, |out, agent| {
            text::json(out, cut(agent, USER_AGENT_BYTES));
        });
        out.extend_from_slice(b",\"x-envoy-origin-path\":\"");
        redact::target(out, cut(self.path, TARGET_BYTES), text::json);
        out.extend_from_slice(b"\",\"x-envoy-upstream-service-time\":");
        json_or_null(out, self.upstream_duration, |out, took| {
            text::number(out, text::whole_millis(took));
        });
        out.extend_from_slice(b",\"x-forwarded-for\":\"");
        text::ip(out, self.client);
        out.extend_from_slice(b"\",\"x-request-id\":\"");
        text::json(out, cut(self.request_id, REQUEST_ID_BYTES));
        out.extend_from_slice(b"\"}\n");
    }
}

fn json_or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => {
            out.push(b'"');
            write(out, value);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::observe::record::tests::sample;

    fn written(record: &AccessRecord<'_>) -> Value {
        let mut out = Vec::new();
        record.envoy(&mut out, &mut Stamp::new());
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_record_has_the_keys_of_envoy_gateways_default() {
        let want = json!({
            ":authority": "shop.example.com",
            "bytes_received": 0,
            "bytes_sent": 5321,
            "connection_termination_details": null,
            "downstream_local_address": "192.0.2.1:443",
            "downstream_remote_address": "198.51.100.7:50123",
            "duration": 12,
            "method": "GET",
            "protocol": "HTTP/2",
            "requested_server_name": "shop.example.com",
            "response_code": 200,
            "response_code_details": "via_upstream",
            "response_flags": "-",
            "route_name": "shop/cart",
            "start_time": "2026-09-14T11:59:59.988Z",
            "upstream_cluster": "shop/cart",
            "upstream_host": "10.0.0.5:8080",
            "upstream_local_address": null,
            "upstream_transport_failure_reason": null,
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "x-envoy-origin-path": "/cart?item=7&token=[redacted]",
            "x-envoy-upstream-service-time": "11",
            "x-forwarded-for": "198.51.100.7",
            "x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        });
        let got = written(&sample());
        assert_eq!(got, want);
        assert!(got.as_object().unwrap().keys().is_sorted());
    }

    #[test]
    fn what_is_not_known_is_null() {
        let record = AccessRecord {
            attempts: 0,
            local: None,
            sni: None,
            upstream: None,
            upstream_duration: None,
            user_agent: None,
            ..sample()
        };
        let got = written(&record);
        for key in [
            "downstream_local_address",
            "requested_server_name",
            "upstream_cluster",
            "upstream_host",
            "user-agent",
            "x-envoy-upstream-service-time",
        ] {
            assert_eq!(got[key], Value::Null, "{key}");
        }
    }

    #[test]
    fn a_peers_words_stay_within_their_field() {
        let record = AccessRecord {
            host: "a\",\"response_code\":200,\"b\":\"",
            path: "/\"}\n{\"x\":\"",
            user_agent: Some(b"\"}\x1b\xff"),
            ..sample()
        };
        let got = written(&record);
        assert_eq!(got["response_code"], 200);
        assert_eq!(got.as_object().unwrap().len(), 24);
    }
}

//! The rules of ClientTrafficPolicy: those of Envoy Gateway's CRD, and those of its translation for
//! the supported fields.

use crate::api::envoy::client_traffic_policy::{
    ClientConnection, ClientIpDetection, EscapedSlashes, ForwardedCertDetail, ForwardedCertMode,
    HeaderFilter, HeaderSettings, RequestIdAction, SchemeTransform, UnderscoresAction,
    XForwardedClientCert,
};
use crate::api::envoy::{ClientTrafficPolicy, ClientTrafficPolicySpec};
use crate::config::path::Path;
use crate::net::FRAMING_FIELDS;

use super::string_match::string_matches;
use super::violations::Violations;
use super::{backend_settings, client_tls, policy_targets};

/// The maximum of the CRD for a number that Envoy Gateway reads as one without sign.
const MOST: u32 = i32::MAX.unsigned_abs();

pub(super) fn policy(policy: &ClientTrafficPolicy, at: Path<'_>, found: &mut Violations) {
    let spec: &ClientTrafficPolicySpec = &policy.spec;
    policy_targets::spec(spec, at, found);
    if let Some(of) = &spec.client_ip_detection {
        client_ip_detection(of, at.field("clientIPDetection"), found);
    }
    if let Some(of) = &spec.tls {
        client_tls::tls(of, at.field("tls"), found);
    }
    if let Some(action) = spec.path.as_ref().and_then(|path| path.escaped_slashes_action.as_ref()) {
        let at = at.field("path");
        found.word(at.field("escapedSlashesAction"), action.unknown(), EscapedSlashes::WORDS);
    }
    if let Some(of) = &spec.headers {
        headers(of, at.field("headers"), found);
    }
    if let Some(of) = &spec.connection {
        connection(of, at.field("connection"), found);
    }
    if let Some(of) = &spec.http1 {
        let at = at.field("http1");
        string_matches(&of.ignored_upgrade_types, at.field("ignoredUpgradeTypes"), found);
    }
    if let Some(of) = &spec.http2 {
        backend_settings::http2(of, at.field("http2"), found);
    }
    if let Some(of) = &spec.health_check {
        let at = at.field("healthCheck");
        found.length(at.field("path"), &of.path, 1..=1024);
    }
    let unknown = spec.scheme.as_ref().and_then(SchemeTransform::unknown);
    found.word(at.field("scheme"), unknown, SchemeTransform::WORDS);
}

fn client_ip_detection(of: &ClientIpDetection, at: Path<'_>, found: &mut Violations) {
    let ClientIpDetection { x_forwarded_for, custom_header, direct_source_ip } = of;
    let set = [x_forwarded_for.is_some(), custom_header.is_some(), direct_source_ip.is_some()];
    let problem = "exactly one of xForwardedFor, customHeader, or directSourceIP must be set";
    found.require(set.iter().filter(|is_set| **is_set).count() == 1, at, problem);
    if let Some(of) = x_forwarded_for {
        let at = at.field("xForwardedFor");
        let problem = "only one of numTrustedHops or trustedCIDRs must be set";
        found.require(of.num_trusted_hops.is_some() != of.trusted_cidrs.is_some(), at, problem);
        found.optional(at.field("numTrustedHops"), of.num_trusted_hops, 0..=MOST);
        if let Some(ranges) = &of.trusted_cidrs {
            let at = at.field("trustedCIDRs");
            found.count(at, ranges.len(), 1..=usize::MAX);
            for (index, range) in ranges.iter().enumerate() {
                found.address_range(at.item(index), range);
            }
        }
    }
    if let Some(of) = custom_header {
        let at = at.field("customHeader");
        let at = at.field("name");
        found.length(at, &of.name, 1..=255);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let problem = "a name has only letters, digits and `-`";
        found.require(of.name.bytes().all(allowed), at, problem);
    }
}

fn headers(of: &HeaderSettings, at: Path<'_>, found: &mut Violations) {
    let problem = "preserveXRequestID and requestID cannot both be set.";
    found.require(of.preserve_x_request_id.is_none() || of.request_id.is_none(), at, problem);
    let unknown = of.request_id.as_ref().and_then(RequestIdAction::unknown);
    found.word(at.field("requestID"), unknown, RequestIdAction::WORDS);
    let unknown = of.with_underscores_action.as_ref().and_then(UnderscoresAction::unknown);
    found.word(at.field("withUnderscoresAction"), unknown, UnderscoresAction::WORDS);
    if let Some(of) = &of.x_forwarded_client_cert {
        forwarded_cert(of, at.field("xForwardedClientCert"), found);
    }
    for (field, filter) in [
        ("earlyRequestHeaders", &of.early_request_headers),
        ("lateResponseHeaders", &of.late_response_headers),
    ] {
        if let Some(filter) = filter {
            header_filter(filter, at.field(field), found);
        }
    }
}

fn forwarded_cert(of: &XForwardedClientCert, at: Path<'_>, found: &mut Violations) {
    let unknown = of.mode.as_ref().and_then(ForwardedCertMode::unknown);
    found.word(at.field("mode"), unknown, ForwardedCertMode::WORDS);
    let details = at.field("certDetailsToAdd");
    found.count(details, of.cert_details_to_add.len(), 0..=5);
    for (index, detail) in of.cert_details_to_add.iter().enumerate() {
        found.word(details.item(index), detail.unknown(), ForwardedCertDetail::WORDS);
    }
    let adds =
        matches!(of.mode, Some(ForwardedCertMode::AppendForward | ForwardedCertMode::SanitizeSet));
    let problem = "certDetailsToAdd can only be set when mode is AppendForward or SanitizeSet";
    found.require(adds || of.cert_details_to_add.is_empty(), at, problem);
}

fn header_filter(filter: &HeaderFilter, at: Path<'_>, found: &mut Violations) {
    let HeaderFilter { set, add, add_if_absent, remove, remove_on_match } = filter;
    for (field, list) in [("set", set), ("add", add), ("addIfAbsent", add_if_absent)] {
        let Some(list) = list else { continue };
        let at = at.field(field);
        found.count(at, list.len(), 1..=64);
        for (index, header) in list.iter().enumerate() {
            let at = at.item(index);
            changeable(at.field("name"), &header.name, found);
            found.header_value(at.field("value"), &header.value);
            let problem = "operators of Envoy, such as `%REQ(NAME)%`, are not supported here; write \
                           `%%` for a percent sign";
            found.require(
                !header.value.replace("%%", "").contains('%'),
                at.field("value"),
                problem,
            );
        }
        let names = list.iter().map(|header| &header.name);
        found.unique(at, names, "this name is used above already");
    }
    if let Some(names) = remove {
        let at = at.field("remove");
        found.count(at, names.len(), 1..=64);
        for (index, name) in names.iter().enumerate() {
            changeable(at.item(index), name, found);
        }
        found.unique(at, names, "this name is used above already");
    }
    if let Some(matches) = remove_on_match {
        let at = at.field("removeOnMatch");
        found.count(at, matches.len(), 1..=64);
        string_matches(matches, at, found);
    }
    let is_empty = set.is_none()
        && add.is_none()
        && add_if_absent.is_none()
        && remove.is_none()
        && remove_on_match.is_none();
    found.require(!is_empty, at, "nothing is changed; write a change or leave the field out");
}

/// Checks the name of a header that is changed.
fn changeable(at: Path<'_>, name: &str, found: &mut Violations) {
    found.header_name(at, name);
    let name = name.to_ascii_lowercase();
    if name == "host" || FRAMING_FIELDS.contains(&&*name) {
        found.add(
            at,
            format!("`{name}` frames the message or names its host; it cannot be changed"),
        );
    }
}

fn connection(of: &ClientConnection, at: Path<'_>, found: &mut Violations) {
    if let Some(of) = &of.connection_limit {
        let at = at.field("connectionLimit");
        let problem = "closeDelay can only be configured when value is set";
        found.require(of.close_delay.is_none() || of.value.is_some(), at, problem);
        found.optional(at.field("value"), of.value, 1..=i64::MAX);
        let requests = of.max_requests_per_connection;
        found.optional(at.field("maxRequestsPerConnection"), requests, 0..=MOST);
    }
    let accepts = of.max_accept_per_socket_event;
    found.optional(at.field("maxAcceptPerSocketEvent"), accepts, 0..=MOST);
    for (field, limit) in
        [("bufferLimit", &of.buffer_limit), ("socketBufferLimit", &of.socket_buffer_limit)]
    {
        if let Some(limit) = limit {
            found.quantity(at.field(field), limit);
        }
    }
}

//! Tests of the fields that describe the client to a backend.

use super::*;

/// The client, scheme and port of a request.
struct Told {
    client: IpAddr,
    scheme: Scheme,
    port: u16,
}

fn told(trusted: &[&str], sent: &[(&str, &str)]) -> (HeaderMap, Told) {
    told_by("shop.test", trusted, sent)
}

fn told_by(host: &'static str, trusted: &[&str], sent: &[(&str, &str)]) -> (HeaderMap, Told) {
    asked(host, trusted, None, sent).unwrap()
}

/// For a connection by https on port 443, from 192.0.2.7.
fn asked(
    host: &'static str,
    trusted: &[&str],
    detection: Option<&ClientDetection>,
    sent: &[(&str, &str)],
) -> Result<(HeaderMap, Told), Failure> {
    let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
    let origin = ConnectionOrigin::new(
        "[::ffff:192.0.2.7]:4711".parse().unwrap(),
        Scheme::Https,
        443,
        &trusted,
    );
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    let field = HeaderValue::from_static(host);
    let host = HostName::parse(&field).unwrap();
    let fields = NotedFields::of(&headers);
    let policy =
        detection.map(|of| ClientPolicy { detection: Some(of.clone()), ..ClientPolicy::default() });
    let told = origin.of_request(&mut headers, fields, &host, &field, &trusted, policy.as_ref())?;
    let RequestOrigin { client, request_id, scheme, port, fields } = told;
    fields.insert_into(&mut headers, request_id);
    Ok((headers, Told { client, scheme, port }))
}

const SENT: &[(&str, &str)] = &[
    ("x-forwarded-for", "203.0.113.9, 10.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "public.example"),
    ("x-forwarded-port", "8443"),
    ("x-real-ip", "203.0.113.9"),
    ("forwarded", "for=203.0.113.9"),
    ("x-request-id", "theirs"),
];

#[test]
fn an_unknown_peer_is_believed_nothing() {
    let (headers, told_of) = told(&["10.0.0.0/8"], SENT);
    assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "shop.test");
    assert_eq!(headers["x-forwarded-port"], "443");
    assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("forwarded"));
    assert_ne!(headers["x-request-id"], "theirs");
    assert_eq!(told_of.client.to_string(), "192.0.2.7");
}

#[test]
fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
    let (headers, told_of) = told(&["10.0.0.0/8", "192.0.2.7"], SENT);
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1, 192.0.2.7");
    assert_eq!(headers["x-forwarded-host"], "public.example");
    assert_eq!(headers["x-forwarded-port"], "8443");
    assert_eq!(headers["x-request-id"], "theirs");
    assert_eq!(told_of.client.to_string(), "203.0.113.9");

    let (headers, told_of) = told(&["192.0.2.7"], &[("x-forwarded-proto", "http")]);
    assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    assert_eq!(headers["x-forwarded-port"], "80");
    assert_eq!(told_of.client.to_string(), "192.0.2.7");
}

#[test]
fn a_trusted_proxy_says_how_the_client_came() {
    let https = ("x-forwarded-proto", "https");
    let http = ("x-forwarded-proto", "http");
    let port = |port| ("x-forwarded-port", port);
    // (fields from the proxy, scheme and port); the connection itself is https on 443
    type Row<'a> = (&'a [(&'a str, &'a str)], Scheme, u16);
    let table: [Row<'_>; 7] = [
        (&[], Scheme::Https, 443),
        (&[http], Scheme::Http, 80),
        (&[https], Scheme::Https, 443),
        (&[http, port("8080")], Scheme::Http, 8080),
        (&[port("8443")], Scheme::Https, 8443),
        (&[http, port("none")], Scheme::Http, 80),
        (&[("x-forwarded-proto", "gopher")], Scheme::Https, 443),
    ];
    for (sent, scheme, port) in table {
        let (_, told) = told(&["192.0.2.7"], sent);
        assert_eq!((told.scheme, told.port), (scheme, port), "{sent:?}");
    }
    let (_, told) = told(&[], &[http, port("8080")]);
    assert_eq!((told.scheme, told.port), (Scheme::Https, 443), "nobody else does");
}

#[test]
fn the_client_is_the_last_hop_that_is_not_ours() {
    let trusted = &["10.0.0.0/8", "192.0.2.7"];
    // (X-Forwarded-For, client)
    let table: [(&[&str], &str); 10] = [
        (&["203.0.113.9:51234"], "203.0.113.9"),
        (&["[2001:db8::9]:51234"], "2001:db8::9"),
        (&["6.6.6.6, 203.0.113.9:1, 10.0.0.1:2"], "203.0.113.9"),
        (&["6.6.6.6", "203.0.113.9", "::ffff:10.0.0.1"], "203.0.113.9"),
        (&["203.0.113.9,,"], "203.0.113.9"),
        (&["203.0.113.9, unknown"], "192.0.2.7"),
        (&["unknown, 10.0.0.1"], "10.0.0.1"),
        // An address within the gateway's own ranges can be a client too.
        (&["10.1.2.3"], "10.1.2.3"),
        (&["10.1.2.3, 10.0.0.1"], "10.1.2.3"),
        (&[], "192.0.2.7"),
    ];
    for (lines, want) in table {
        let sent: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let (headers, told) = told(trusted, &sent);
        assert_eq!(told.client.to_string(), want, "{lines:?}");
        let hops = headers["x-forwarded-for"].to_str().unwrap();
        assert!(hops.ends_with("192.0.2.7"), "{hops}");
    }
}

#[test]
fn port_scheme_and_host_never_contradict_each_other() {
    let mapped = "shop.test:8443";
    let host = |host| ("x-forwarded-host", host);
    let proto = |proto| ("x-forwarded-proto", proto);
    let port = |port| ("x-forwarded-port", port);
    let hops = ("x-forwarded-for", "203.0.113.9, 10.0.0.1");
    // (Host, fields from the proxy, host, port and scheme that the backend gets)
    type Row<'a> = (&'static str, &'a [(&'a str, &'a str)], (&'a str, &'a str, &'a str));
    let table: [Row<'_>; 16] = [
        (mapped, &[], (mapped, "8443", "https")),
        (mapped, &[proto("https")], (mapped, "8443", "https")),
        (mapped, &[proto("https"), port("443")], (mapped, "8443", "https")),
        (mapped, &[host("a.test"), proto("https")], ("a.test", "443", "https")),
        (mapped, &[host("a.test"), port("444")], ("a.test", "444", "https")),
        ("shop.test", &[host("a.test:444")], ("a.test:444", "444", "https")),
        ("shop.test", &[host("a.test:444"), port("443")], ("a.test:444", "444", "https")),
        ("shop.test", &[host("[::1]:444"), proto("http")], ("[::1]:444", "444", "http")),
        ("shop.test", &[port("80")], ("shop.test", "80", "http")),
        ("shop.test", &[port("443"), proto("gopher")], ("shop.test", "443", "https")),
        ("shop.test", &[port("0"), proto("HTTP")], ("shop.test", "80", "http")),
        ("shop.test", &[proto("wss")], ("shop.test", "443", "https")),
        ("shop.test", &[proto("ws")], ("shop.test", "80", "http")),
        // Lists that all proxies have added to, and lists that some have not.
        (
            "shop.test",
            &[hops, proto("https, http"), port("444, 80")],
            ("shop.test", "444", "https"),
        ),
        ("shop.test", &[hops, proto("http, https, http"), port("81")], ("shop.test", "81", "http")),
        ("shop.test", &[proto("https, http")], ("shop.test", "80", "http")),
    ];
    for (named, sent, (host, port, proto)) in table {
        let (headers, told) = told_by(named, &["192.0.2.7", "10.0.0.0/8"], sent);
        let says = |name: &str| headers[name].to_str().unwrap().to_owned();
        let case = format!("{named} {sent:?}");
        assert_eq!(says("x-forwarded-host"), host, "{case}");
        assert_eq!(says("x-forwarded-port"), port, "{case}");
        assert_eq!(says("x-forwarded-proto"), proto, "{case}");
        assert_eq!(told.port.to_string(), port, "{case}");
        assert_eq!(told.scheme.as_str(), proto, "{case}");
    }
    let (headers, told) = told_by(mapped, &[], &[host("a.test"), port("1")]);
    assert_eq!(headers["x-forwarded-host"], mapped);
    assert_eq!((&headers["x-forwarded-port"], told.port), (&"8443".parse().unwrap(), 8443));
}

#[test]
fn a_policy_says_who_is_believed() {
    let ranges = |ranges: &[&str]| {
        AddressSource::Ranges(ranges.iter().map(|range| range.parse().unwrap()).collect())
    };
    let field = |required| {
        let name = HeaderName::from_static("cf-connecting-ip");
        AddressSource::Field { name, required }
    };
    let hops = |value| ("x-forwarded-for", value);
    let client = |value| ("cf-connecting-ip", value);
    let proto = ("x-forwarded-proto", "http");
    // (source, fields, client, `X-Forwarded-For` and scheme that the backend gets); the peer is
    // 192.0.2.7, and every request comes with the lie `X-Real-IP: 6.6.6.6`.
    type Row<'a> = (AddressSource, &'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    let table: [Row<'_>; 19] = [
        (AddressSource::Peer, &[hops("6.6.6.6"), proto], "192.0.2.7", "192.0.2.7", "https"),
        // Ranges: a stranger, then a proxy.
        (ranges(&["10.0.0.0/8"]), &[hops("6.6.6.6"), proto], "192.0.2.7", "192.0.2.7", "https"),
        (ranges(&["192.0.2.0/24"]), &[], "192.0.2.7", "192.0.2.7", "https"),
        (
            ranges(&["192.0.2.0/24"]),
            &[hops("6.6.6.6, 203.0.113.9"), hops("192.0.2.8"), proto],
            "203.0.113.9",
            "6.6.6.6, 203.0.113.9, 192.0.2.8, 192.0.2.7",
            "http",
        ),
        (
            ranges(&["192.0.2.0/24"]),
            &[hops("203.0.113.9, ;DROP")],
            "192.0.2.7",
            "203.0.113.9, ;DROP, 192.0.2.7",
            "https",
        ),
        (
            ranges(&["192.0.2.0/24"]),
            &[hops("192.0.2.9, 192.0.2.8")],
            "192.0.2.9",
            "192.0.2.9, 192.0.2.8, 192.0.2.7",
            "https",
        ),
        // Hops, counted from the right.
        (
            AddressSource::Hops(1),
            &[hops("6.6.6.6, 203.0.113.9"), proto],
            "203.0.113.9",
            "6.6.6.6, 203.0.113.9, 192.0.2.7",
            "http",
        ),
        (
            AddressSource::Hops(2),
            &[hops("6.6.6.6"), hops("203.0.113.9,10.0.0.1")],
            "203.0.113.9",
            "6.6.6.6, 203.0.113.9, 10.0.0.1, 192.0.2.7",
            "https",
        ),
        // Fewer hops than proxies, or none, or garbage in that place: nothing is believed.
        (AddressSource::Hops(2), &[hops("6.6.6.6"), proto], "192.0.2.7", "192.0.2.7", "https"),
        (AddressSource::Hops(1), &[proto], "192.0.2.7", "192.0.2.7", "https"),
        (AddressSource::Hops(1), &[hops("6.6.6.6, x")], "192.0.2.7", "192.0.2.7", "https"),
        (AddressSource::Hops(1), &[hops(" , ,")], "192.0.2.7", "192.0.2.7", "https"),
        // A field of one address.
        (
            field(true),
            &[client("203.0.113.9"), hops("6.6.6.6"), proto],
            "203.0.113.9",
            "203.0.113.9, 192.0.2.7",
            "https",
        ),
        (field(false), &[client("2001:db8::9")], "2001:db8::9", "2001:db8::9, 192.0.2.7", "https"),
        (field(false), &[client("192.0.2.7")], "192.0.2.7", "192.0.2.7", "https"),
        (field(false), &[hops("6.6.6.6")], "192.0.2.7", "192.0.2.7", "https"),
        (field(false), &[client("6.6.6.6, 7.7.7.7")], "192.0.2.7", "192.0.2.7", "https"),
        (field(false), &[client("6.6.6.6"), client("7.7.7.7")], "192.0.2.7", "192.0.2.7", "https"),
        (field(false), &[client("garbage")], "192.0.2.7", "192.0.2.7", "https"),
    ];
    for (source, sent, client, hops, scheme) in table {
        let detection = ClientDetection { source, appends: true };
        let case = format!("{detection:?} {sent:?}");
        let mut sent = sent.to_vec();
        sent.extend([("x-envoy-external-address", "6.6.6.6"), ("x-real-ip", "6.6.6.6")]);
        let (headers, told) = asked("shop.test", &[], Some(&detection), &sent).unwrap();
        assert_eq!(told.client.to_string(), client, "{case}");
        assert_eq!(headers["x-forwarded-for"], hops, "{case}");
        assert_eq!(headers["x-envoy-external-address"], client, "{case}");
        assert_eq!(told.scheme.as_str(), scheme, "{case}");
        assert_eq!(headers["x-forwarded-proto"], scheme, "{case}");
    }
}

#[test]
fn a_request_without_a_required_address_is_refused() {
    let name = HeaderName::from_static("x-client");
    let source = AddressSource::Field { name, required: true };
    let detection = ClientDetection { source, appends: true };
    for sent in [&[][..], &[("x-client", "")], &[("x-client", "6.6.6.6, 7.7.7.7")]] {
        let refused = asked("shop.test", &[], Some(&detection), sent).err();
        assert_eq!(refused.map(|failure| failure.status().as_u16()), Some(403), "{sent:?}");
    }
}

#[test]
fn the_hops_of_a_proxy_stay_as_they_are_if_the_policy_says_so() {
    let ranges = ["192.0.2.0/24".parse().unwrap()].into();
    let source = AddressSource::Ranges(ranges);
    let detection = ClientDetection { source, appends: false };
    let sent = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.8")];
    let (headers, told) = asked("shop.test", &[], Some(&detection), &sent).unwrap();
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(lines, ["203.0.113.9", "192.0.2.8"]);
    assert_eq!(told.client.to_string(), "203.0.113.9");
    let (headers, _) = asked("shop.test", &[], Some(&detection), &[]).unwrap();
    assert!(!headers.contains_key("x-forwarded-for"));
}

#[test]
fn a_policy_says_whose_request_id_is_kept() {
    // (mode, trusted proxies, ID that is sent, ID that the backend gets: theirs, or a new one)
    type Row<'a> = (RequestIds, &'a [&'a str], Option<&'a str>, Option<bool>);
    let proxy = &["192.0.2.7"][..];
    let table: [Row<'_>; 10] = [
        (RequestIds::Trusted, &[], Some("theirs"), Some(false)),
        (RequestIds::Trusted, proxy, Some("theirs"), Some(true)),
        (RequestIds::Generated, proxy, Some("theirs"), Some(false)),
        (RequestIds::Generated, &[], None, Some(false)),
        (RequestIds::Kept, &[], Some("theirs"), Some(true)),
        (RequestIds::Kept, proxy, Some("theirs"), Some(true)),
        (RequestIds::Kept, &[], None, Some(false)),
        (RequestIds::AsReceived, &[], Some("theirs"), Some(true)),
        (RequestIds::AsReceived, proxy, None, None),
        (RequestIds::AsReceived, &[], None, None),
    ];
    for (request_ids, trusted, sent, want) in table {
        let case = format!("{request_ids:?} {trusted:?} {sent:?}");
        let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        let peer = "192.0.2.7:4711".parse().unwrap();
        let origin = ConnectionOrigin::new(peer, Scheme::Https, 443, &trusted);
        let mut headers = HeaderMap::new();
        if let Some(sent) = sent {
            headers.insert("x-request-id", sent.parse().unwrap());
        }
        let field = HeaderValue::from_static("shop.test");
        let host = HostName::parse(&field).unwrap();
        let noted = NotedFields::of(&headers);
        let policy = ClientPolicy { request_ids, ..ClientPolicy::default() };
        let of = origin.of_request(&mut headers, noted, &host, &field, &trusted, Some(&policy));
        let RequestOrigin { request_id, fields, .. } = of.unwrap();
        fields.insert_into(&mut headers, request_id);
        let is_theirs = headers.get("x-request-id").map(|id| id == "theirs");
        assert_eq!(is_theirs, want, "{case}");
    }
}

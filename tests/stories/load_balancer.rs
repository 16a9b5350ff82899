//! Load balancers of BackendTrafficPolicies: shares, stickiness, slow start, endpoints by name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::support::{
    Answer, Gateway, Greeter, Origin, Setup, Wire, backend, forward_route, gateway_of, http_route,
    refusing_address, serve_all, soon,
};

/// A BackendTrafficPolicy of route `name` with this `loadBalancer`.
fn policy(kind: &str, name: &str, load_balancer: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}]\n  \
         loadBalancer: {{{load_balancer}}}\n"
    )
}

const BY_USER: &str =
    "type: ConsistentHash, consistentHash: {type: Header, header: {name: X-User}}";

/// Three origins, which answer with their number.
async fn origins() -> [Origin; 3] {
    [Origin::replying("0").await, Origin::replying("1").await, Origin::replying("2").await]
}

fn files(origins: &[&Origin], load_balancer: &str) -> String {
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    serve_all("shop", "shop.test", &addresses) + &policy("HTTPRoute", "shop", load_balancer)
}

async fn gateway(origins: &[Origin; 3], load_balancer: &str) -> Gateway {
    let origins: Vec<&Origin> = origins.iter().collect();
    let setup = Gateway::setup().flag("--workers 4");
    setup.file("routes/shop.yaml", &files(&origins, load_balancer)).start().await
}

/// The answer of the origin to one request on a connection of its own, so on any worker.
async fn ask(gateway: &Gateway, target: &str, lines: &str) -> String {
    let reply = gateway.get_with(&format!("http://shop.test{target}"), lines).await;
    assert_eq!(reply.status(), 200);
    reply.text()
}

/// The number of answers of each origin to `count` requests on one connection.
async fn shares(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut wire = gateway.wire().await;
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        *shares.entry(wire.reply().await.text()).or_default() += 1;
    }
    shares
}

/// The origin of each of some users.
async fn origins_of_users(gateway: &Gateway) -> Vec<String> {
    let mut origins = Vec::new();
    for user in 0..90 {
        origins.push(ask(gateway, "/", &format!("X-User: {user}\r\n")).await);
    }
    origins
}

#[tokio::test]
async fn the_types_without_a_hash_divide_requests_equally() {
    let origins = origins().await;
    for (kind, tolerance) in [("RoundRobin", 0), ("Random", 60), ("LeastRequest", 60)] {
        let gateway = gateway(&origins, &format!("type: {kind}")).await;
        let shares = shares(&gateway, 300).await;
        assert_eq!(shares.values().sum::<usize>(), 300);
        // Of 300 random requests a host gets 100, and one time in a billion not 40 to 160.
        let is_fair = |share: &usize| share.abs_diff(100) <= tolerance;
        assert!(shares.len() == 3 && shares.values().all(is_fair), "{kind} {shares:?}");
    }
}

/// One of two hosts has a request that lasts: until it ends, all others go to the other host,
/// whichever worker has them.
#[tokio::test]
async fn a_busy_host_gets_no_request_while_another_one_is_idle() {
    let busy = |name: &'static str| {
        Origin::scripted(move |seen| match &*seen.target() {
            "/long" => Answer::ok(name).after(Duration::from_secs(4)),
            _ => Answer::ok(name),
        })
    };
    let origins = [busy("0").await, busy("1").await];
    let text = files(&[&origins[0], &origins[1]], "type: LeastRequest");
    let gateway = Gateway::setup().flag("--workers 4").file("routes/shop.yaml", &text);
    let gateway = gateway.start().await;
    let mut long = gateway.wire().await;
    long.send("GET /long HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let arrives = async {
        while origins.iter().all(|origin| origin.seen().is_empty()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the long request", arrives).await;
    let begun = Instant::now();
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(ask(&gateway, "/", "").await);
        // A loaded machine may need longer than the request lasts.
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let during = begun.elapsed() < Duration::from_secs(3);
    let name = soon("its answer", long.reply()).await.text();
    assert!(!during || others.iter().all(|other| *other != name), "{name} {others:?}");
    let shares = shares(&gateway, 100).await;
    assert_eq!(shares.len(), 2, "the host takes part again: {shares:?}");
}

#[tokio::test]
async fn requests_with_the_same_value_go_to_the_same_host() {
    let line =
        |name: &'static str| move |value: usize| (String::new(), format!("{name}: {value}\r\n"));
    type Asks = Box<dyn Fn(usize) -> (String, String)>;
    // (consistentHash, the target and the field lines for a value)
    let table: [(&str, Asks); 5] = [
        ("{type: Header, header: {name: x-user}}", Box::new(line("X-User"))),
        (
            "{type: Headers, headers: [{name: x-shop}, {name: x-user}]}",
            Box::new(|value| {
                (String::new(), format!("X-User: {}\r\nX-Shop: {}\r\n", value % 7, value % 5))
            }),
        ),
        (
            "{type: Cookie, cookie: {name: user}}",
            Box::new(|value| (String::new(), format!("Cookie: a=b; user={value}\r\n"))),
        ),
        (
            "{type: QueryParams, queryParams: [{name: id}]}",
            Box::new(|value| (format!("?x=1&id={value}"), String::new())),
        ),
        ("{type: SourceIP}", Box::new(line("X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\nX-Count"))),
    ];
    let origins = origins().await;
    for (hash, asks) in table {
        let load_balancer = format!("type: ConsistentHash, consistentHash: {hash}");
        let gateway = gateway(&origins, &load_balancer).await;
        let mut used = BTreeMap::<String, usize>::new();
        for value in 0..40 {
            let (target, lines) = asks(value);
            let first = ask(&gateway, &format!("/{target}"), &lines).await;
            assert_eq!(ask(&gateway, &format!("/b{target}"), &lines).await, first, "{hash}");
            *used.entry(first).or_default() += 1;
        }
        // Without a trusted proxy there is one client.
        let want = if hash.contains("SourceIP") { 1 } else { 3 };
        assert_eq!(used.len(), want, "{hash} {used:?}");
    }
    // A request without the value goes to a random host.
    let gateway = gateway(&origins, BY_USER).await;
    assert_eq!(shares(&gateway, 100).await.len(), 3);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_hashed_by_their_own_address() {
    let origins = origins().await;
    let by_address = "type: ConsistentHash, consistentHash: {type: SourceIP}";
    let all: Vec<&Origin> = origins.iter().collect();
    let setup = Gateway::setup().flag("--trusted-proxies 127.0.0.0/8");
    let gateway = setup.file("routes/shop.yaml", &files(&all, by_address)).start().await;
    let mut used = BTreeMap::<String, usize>::new();
    for client in 0..40 {
        let lines = format!("X-Forwarded-For: 192.0.2.{client}\r\n");
        let first = ask(&gateway, "/", &lines).await;
        assert_eq!(ask(&gateway, "/", &lines).await, first);
        *used.entry(first).or_default() += 1;
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

#[tokio::test]
async fn a_reload_moves_nobody_and_a_host_that_leaves_only_its_own() {
    let origins = origins().await;
    let gateway = gateway(&origins, BY_USER).await;
    let before = origins_of_users(&gateway).await;
    gateway.write("routes/other.yaml", &serve_all("other", "other.test", &[origins[0].address]));
    gateway.reload().await;
    assert_eq!(origins_of_users(&gateway).await, before);

    gateway.write("routes/shop.yaml", &files(&[&origins[0], &origins[2]], BY_USER));
    gateway.reload().await;
    let after = origins_of_users(&gateway).await;
    assert!(after.iter().all(|origin| origin != "1"));
    let stayed = before.iter().filter(|origin| *origin != "1").count();
    let pairs = before.iter().zip(&after);
    let moved = pairs.filter(|(before, after)| *before != "1" && before != after).count();
    // About one in a hundred: a table without one host fills differently in a few places.
    assert!(moved * 5 < stayed, "{moved} of {stayed}");
}

#[tokio::test]
async fn a_host_that_refuses_connections_loses_its_users_to_all_others() {
    let origins = origins().await;
    let gateway = gateway(&origins, BY_USER).await;
    let before = origins_of_users(&gateway).await;
    let [zero, one, two] = origins;
    drop(one);
    let after = origins_of_users(&gateway).await;
    let mut taken_over = BTreeMap::<&str, usize>::new();
    for (before, after) in before.iter().zip(&after) {
        match &**before {
            "1" => *taken_over.entry(after).or_default() += 1,
            before => assert_eq!(before, after),
        }
    }
    assert!(!taken_over.contains_key("1") && taken_over.len() == 2, "{taken_over:?}");
    drop((zero, two));
}

#[tokio::test]
async fn a_client_without_the_cookie_gets_one_that_keeps_it_at_its_host() {
    let origins = origins().await;
    // (cookie, the end of the field that is set; `None`: none is)
    let table = [
        ("{name: user}", None),
        ("{name: user, ttl: 1h}", Some("; Max-Age=3600; Path=/; HttpOnly")),
        (
            "{name: user, ttl: 0s, attributes: {SameSite: Lax, Secure: \"\"}}",
            Some("; Path=/; SameSite=Lax; Secure; HttpOnly"),
        ),
    ];
    for (cookie, want) in table {
        let hash =
            format!("type: ConsistentHash, consistentHash: {{type: Cookie, cookie: {cookie}}}");
        let gateway = gateway(&origins, &hash).await;
        let mut used = BTreeMap::<String, usize>::new();
        for _ in 0..40 {
            let reply = gateway.get("http://shop.test/").await;
            *used.entry(reply.text()).or_default() += 1;
            let set = reply.header("set-cookie");
            let Some(want) = want else {
                assert_eq!(set, None);
                continue;
            };
            let set = set.unwrap();
            let (pair, attributes) = set.split_at(set.find(';').unwrap());
            assert_eq!(attributes, want);
            assert!(pair.starts_with("user=") && pair.len() == 21, "{pair}");
            let again = gateway.get_with("http://shop.test/", &format!("Cookie: {pair}\r\n")).await;
            assert_eq!((again.text(), again.header("set-cookie")), (reply.text(), None));
        }
        assert_eq!(used.len(), 3, "{cookie} {used:?}");
    }
}

/// The backend is chosen by the same hash as the host: a client does not change between them.
#[tokio::test]
async fn weighted_backends_keep_a_client_on_one_side() {
    let origins = origins().await;
    let rule = "- backendRefs:\n    \
                - {group: gateway.envoyproxy.io, kind: Backend, name: a, weight: 70}\n    \
                - {group: gateway.envoyproxy.io, kind: Backend, name: b, weight: 30}\n";
    let text = backend("a", &[origins[0].address, origins[1].address])
        + &backend("b", &[origins[2].address])
        + &http_route("shop", &["shop.test"], rule)
        + &policy("HTTPRoute", "shop", BY_USER);
    let gateway = Gateway::setup().file("routes/shop.yaml", &text).start().await;
    let before = origins_of_users(&gateway).await;
    assert_eq!(origins_of_users(&gateway).await, before);
    let of_b = before.iter().filter(|origin| *origin == "2").count();
    // The hashes are always the same: 30 % of 90, and not by chance.
    assert!((12..=42).contains(&of_b), "{of_b}");
    assert!(before.iter().any(|origin| origin == "0") && before.iter().any(|of| of == "1"));
}

#[tokio::test]
async fn a_new_host_comes_to_its_share_little_by_little() {
    let window = Duration::from_secs(5);
    for kind in ["RoundRobin", "LeastRequest"] {
        let origins = origins().await;
        let load_balancer = format!("type: {kind}, slowStart: {{window: 5s}}");
        let text = files(&[&origins[0]], &load_balancer);
        let gateway = Gateway::setup().file("routes/shop.yaml", &text).start().await;
        // The first host has to be there for longer than the window, or both are new.
        sleep(window + Duration::from_millis(100)).await;
        gateway.write("routes/shop.yaml", &files(&[&origins[0], &origins[1]], &load_balancer));
        gateway.reload().await;
        let begun = Instant::now();
        let early = shares(&gateway, 200).await.get("1").copied().unwrap_or_default();
        if begun.elapsed() < Duration::from_secs(2) {
            // A weight of 0.1 to 0.4: a share of 9 % to 29 %. An equal share is 100.
            assert!((1..80).contains(&early), "{kind} {early}");
        }
        sleep(window.saturating_sub(begun.elapsed()) + Duration::from_millis(100)).await;
        let late = shares(&gateway, 200).await["1"];
        assert!((60..=140).contains(&late), "{kind} {late}");
    }
}

#[tokio::test]
async fn a_request_may_name_its_endpoint_where_the_policy_allows_it() {
    let origins = origins().await;
    let named = "type: RoundRobin, endpointOverride: {extractFrom: [{header: X-Endpoint}]}";
    let all = files(&origins.iter().collect::<Vec<_>>(), named);
    let other = serve_all("other", "other.test", &[origins[0].address]).replace("other", "open");
    let gateway = Gateway::setup().file("routes/shop.yaml", &(all + &other)).start().await;
    let [zero, one, two] = origins;
    for origin in [&zero, &one, &two, &one] {
        let lines = format!("X-Endpoint: {}\r\n", origin.address);
        let before = origin.seen().len();
        for _ in 0..3 {
            ask(&gateway, "/", &lines).await;
        }
        assert_eq!(origin.seen().len(), before + 3);
        // Without the policy the field is one like any other.
        let reply = gateway.get_with("http://open.test/", &lines).await;
        assert_eq!(reply.text(), "0");
    }
    // What is no endpoint of the rule is not used: the policy decides.
    for lines in ["X-Endpoint: 192.0.2.1:80\r\n", "X-Endpoint: nonsense\r\n", "X-Endpoint:\r\n"] {
        let mut used = BTreeMap::<String, usize>::new();
        for _ in 0..6 {
            *used.entry(ask(&gateway, "/", lines).await).or_default() += 1;
        }
        assert_eq!(used.len(), 3, "{lines} {used:?}");
    }
    let list = format!("X-Endpoint: 192.0.2.1:80, {}, {}\r\n", two.address, one.address);
    assert_eq!(ask(&gateway, "/", &list).await, "2");
    // An endpoint that does not accept connections is not asked again.
    drop(two);
    for _ in 0..3 {
        ask(&gateway, "/", &list).await;
    }
    assert_eq!(ask(&gateway, "/", &list).await, "1");
}

/// A Gateway with a TCP listener, and three backends that greet with their name.
fn tcp_setup(backends: &[(SocketAddr, u32)], load_balancer: &str) -> Setup {
    let all: Vec<SocketAddr> = backends.iter().map(|(address, _)| *address).collect();
    let route = forward_route("TCPRoute", "tcp", "tcp", &[], &backends[..1]);
    // One Backend with all endpoints, in place of the one that the route has.
    let (_, route) = route.split_once("kind: TCPRoute").unwrap();
    let route = format!(
        "{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute{route}",
        backend("tcp-0", &all)
    );
    Gateway::setup()
        .socket("tcp", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of("- {name: tcp, protocol: TCP, port: 9300}\n"))
        .file("routes/r.yaml", &(route + &policy("TCPRoute", "tcp", load_balancer)))
}

/// The greeting for a client at this address.
async fn greeting(gateway: &Gateway, client: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(gateway.address("tcp")).await.unwrap();
    let mut wire = Wire::tcp(stream);
    let line = soon("a greeting", wire.through(b"\n")).await.unwrap();
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn connections_of_one_client_go_to_one_host() {
    let greeters =
        [Greeter::plain("0").await, Greeter::plain("1").await, Greeter::plain("2").await];
    let backends: Vec<_> = greeters.iter().map(|greeter| (greeter.address, 1)).collect();
    let by_address = "type: ConsistentHash, consistentHash: {type: SourceIP}";
    let gateway = tcp_setup(&backends, by_address).start().await;
    let mut used = BTreeMap::<String, usize>::new();
    for client in 1..30 {
        let client = format!("127.0.1.{client}");
        let first = greeting(&gateway, &client).await;
        assert_eq!(greeting(&gateway, &client).await, first);
        *used.entry(first).or_default() += 1;
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

/// An open connection counts as a request does.
#[tokio::test]
async fn a_connection_goes_to_the_host_with_fewer() {
    let greeters = [Greeter::plain("0").await, Greeter::plain("1").await];
    let backends: Vec<_> = greeters.iter().map(|greeter| (greeter.address, 1)).collect();
    let gateway = tcp_setup(&backends, "type: LeastRequest").start().await;
    let mut held = Vec::new();
    let mut used = BTreeMap::<Vec<u8>, usize>::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(gateway.address("tcp")).await;
        *used.entry(soon("a greeting", wire.through(b"\n")).await.unwrap()).or_default() += 1;
        held.push(wire);
    }
    assert!(used.values().all(|count| *count == 10), "{used:?}");
}

#[tokio::test]
async fn explain_names_the_policy_and_what_is_hashed() {
    let origins = origins().await;
    let gateway = gateway(&origins, BY_USER).await;
    let explain = async |arguments: &str| {
        let mut command = gateway.setup_ref().command(&format!("explain {arguments}"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let of = "ConsistentHash by header x-user, of policy envoy-gateway-system/shop";
    let printed = explain("http://shop.test/").await;
    let want = format!("{of}: the request does not have it: the endpoint is random");
    assert!(printed.contains(&want), "{printed}");
    let printed = explain("-H X-User:7 http://shop.test/").await;
    let want = format!("{of}: requests with the same value go to the same endpoint");
    assert!(printed.contains(&want), "{printed}");
}

/// Route `shop` to these Backends, the last of which is a fallback.
fn with_fallback(backends: &[&[SocketAddr]]) -> String {
    let mut text = String::new();
    let mut refs = String::new();
    for (place, addresses) in backends.iter().enumerate() {
        text.push_str(&backend(&format!("b{place}"), addresses));
        if place + 1 == backends.len() {
            text.push_str("  fallback: true\n");
        }
        refs.push_str(&format!(
            "    - {{group: gateway.envoyproxy.io, kind: Backend, name: b{place}}}\n"
        ));
    }
    text + &http_route("shop", &["shop.test"], &format!("- backendRefs:\n{refs}"))
}

#[tokio::test]
async fn a_fallback_serves_while_the_others_are_down_and_no_request_fails() {
    let [first, second, fallback] = origins().await;
    let text = with_fallback(&[&[first.address], &[second.address], &[fallback.address]]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &text).start().await;
    let up = shares(&gateway, 40).await;
    assert!(up.len() == 2 && up["0"] >= 18 && up["1"] >= 18, "{up:?}");

    let address = first.address;
    drop((first, second));
    // The first request after that has chosen a backend that is down; it has a body.
    let mut wire = gateway.wire().await;
    for _ in 0..4 {
        wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody").await;
        assert_eq!(wire.reply().await.text(), "2");
        assert_eq!(fallback.last().text(), "body");
    }
    assert_eq!(shares(&gateway, 20).await["2"], 20);
    let line = gateway.logged("a request of the fallback", |line| line["method"] == "POST").await;
    assert_eq!((&line["status"], &line["flags"]), (&200.into(), &"-".into()));
    assert_eq!(line["upstream"], fallback.address.to_string());

    let back = Origin::at(address, |_| Answer::ok("back")).await;
    let returns = async {
        // The address is avoided for 5 s.
        while ask(&gateway, "/", "").await != "back" {
            sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the first backend serves again", returns).await;
    drop(back);
}

/// Half of the endpoints can serve 70 % of the requests: the rest overflows.
#[tokio::test]
async fn a_fallback_gets_what_the_available_endpoints_cannot_serve() {
    let [first, second, fallback] = origins().await;
    let down = [refusing_address(), refusing_address()];
    let own = [first.address, down[0], second.address, down[1]];
    let text = with_fallback(&[&own, &[fallback.address]]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &text).start().await;
    let shares = shares(&gateway, 300).await;
    assert_eq!(shares.values().sum::<usize>(), 300);
    // Of 300 random requests 90, and one time in a billion not 40 to 140. It is less if they take
    // longer than the 5 s for which an address is avoided.
    assert!((20..=140).contains(&shares["2"]), "{shares:?}");
    assert!(shares["0"] > 30 && shares["1"] > 30, "{shares:?}");
}

#[tokio::test]
async fn tries_go_to_the_fallback_after_as_many_as_the_policy_allows() {
    // (tries at each priority, tries at the first, at the fallback, status)
    for (tries, first_sees, fallback_sees, status) in [
        ("", 4, 0, 503),
        ("numAttemptsPerPriority: 1, ", 1, 1, 200),
        ("numAttemptsPerPriority: 2, ", 2, 1, 200),
    ] {
        let first = Origin::scripted(|_| Answer::status(503, "broken")).await;
        let fallback = Origin::replying("fallback").await;
        let retry = policy("HTTPRoute", "shop", "type: RoundRobin")
            + &format!(
                "  retry: {{{tries}numRetries: 3, perRetry: {{backOff: {{baseInterval: 1ms}}}}}}\n"
            );
        let text = with_fallback(&[&[first.address], &[fallback.address]]) + &retry;
        let gateway = Gateway::setup().file("routes/shop.yaml", &text).start().await;
        assert_eq!(gateway.get("http://shop.test/").await.status(), status, "{tries}");
        assert_eq!((first.seen().len(), fallback.seen().len()), (first_sees, fallback_sees));
    }
}

#[tokio::test]
async fn a_connection_goes_to_the_fallback_if_no_other_backend_accepts_it() {
    let greeter = Greeter::plain("fallback").await;
    let backends = [(refusing_address(), 1), (greeter.address, 1)];
    let route = forward_route("TCPRoute", "tcp", "tcp", &[], &backends);
    let route = route.replacen(&backend("tcp-1", &[greeter.address]), "", 1)
        + &backend("tcp-1", &[greeter.address])
        + "  fallback: true\n";
    let setup = Gateway::setup()
        .socket("tcp", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of("- {name: tcp, protocol: TCP, port: 9300}\n"));
    let gateway = setup.file("routes/r.yaml", &route).start().await;
    for _ in 0..3 {
        assert_eq!(greeting(&gateway, "127.0.0.1").await, "hello from fallback\n");
    }
}

//! Backends by name: every address is tried, and a name that is not there harms nobody.

use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use crate::support::{
    Gateway, Origin, backend, clock, http_route, own_loopback, rule_to, serve_all,
};

/// A Backend of the name `hostname`, and a route to it for `host`.
fn by_name(name: &str, host: &str, hostname: &str, port: u16) -> String {
    format!(
        "---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: Backend\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  endpoints:\n    - fqdn:\n        hostname: {hostname}\n        port: {port}\n{}",
        http_route(name, &[host], &rule_to("/", name))
    )
}

#[tokio::test]
async fn a_name_of_this_host_is_found_as_the_host_finds_it() {
    let shop = Origin::replying("shop").await;
    // /etc/hosts may have ::1 for it too, and nobody listens there.
    let routes = by_name("shop", "shop.test", "localhost", shop.address.port());
    let gateway = Gateway::setup().file("routes/shop.yaml", &routes).start().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    }
    assert_eq!(shop.last().header("host").as_deref(), Some("shop.test"), "Host is the client's");
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let shop = Origin::replying("shop").await;
    let (dead, alive) = (own_loopback(), shop.address.ip());
    let routes = by_name("shop", "shop.test", "shop.internal", shop.address.port());
    let gateway = Gateway::setup()
        .flag(&format!("--resolve shop.internal={dead} --resolve shop.internal={alive}"))
        .file("routes/shop.yaml", &routes)
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    }
}

/// RFC 6761 section 6.4: a name below `invalid` does not exist.
#[tokio::test]
async fn a_name_that_does_not_exist_stops_neither_the_start_nor_others() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file("routes/gone.yaml", &by_name("gone", "blog.test", "gone.invalid", 80))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    let reply = gateway.get("http://blog.test/").await;
    assert_eq!(reply.status(), 503, "{reply:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}

/// A backend whose host is gone answers nothing, not even a refusal.
#[tokio::test]
async fn a_connection_that_hangs_is_given_up_for_another() {
    // A queue of one place that is taken: the kernel leaves further connections without an answer.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from((own_loopback(), 0)).into()).unwrap();
    full.listen(0).unwrap();
    let hanging = full.local_addr().unwrap().as_socket().unwrap();
    let mut taken = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(hanging)).await
    {
        taken.push(stream.unwrap());
    }

    let shop = Origin::replying("shop").await;
    let routes = serve_all("shop", "shop.test", &[hanging, shop.address])
        + &backend("lost", &[hanging])
        + &http_route("lost", &["blog.test"], &rule_to("/", "lost"));
    let gateway = Gateway::setup().file("routes/shop.yaml", &routes).start().await;
    let begin = clock();
    let (one, two, lost) = tokio::join!(
        gateway.get("http://shop.test/"),
        gateway.get("http://shop.test/"),
        gateway.get("http://blog.test/"),
    );
    assert_eq!((one.text().as_str(), two.text().as_str()), ("shop", "shop"));
    assert!(matches!(lost.status(), 503 | 504), "{lost:?}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    drop(taken);
}

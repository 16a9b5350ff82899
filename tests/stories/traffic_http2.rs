//! HTTP/2 settings of BackendTrafficPolicies on the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{scrape, value};
use crate::support::{Backend, Echo, Gateway, Setup, free_address, h2c_backend, http_route, soon};
use crate::traffic::policy;

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A route `shop` to a backend that speaks HTTP/2, with `http2` of a policy.
fn setup(shop: SocketAddr, http2: &str) -> Setup {
    let files = h2c_backend("shop", &[shop])
        + &http_route(
            "shop",
            &["shop.test"],
            "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n",
        )
        + &policy("shop", "kind: HTTPRoute, name: shop", &format!("  http2: {http2}\n"));
    Gateway::setup().flag("--workers 1").file("routes/shop.yaml", &files)
}

#[tokio::test]
async fn windows_and_pings_reach_the_backend_and_silence_ends_the_connection() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    let backend = Backend::bind().await;
    let http2 = "{initialStreamWindowSize: 100Ki, initialConnectionWindowSize: 3Mi, \
                 connectionKeepalive: {interval: 300ms, timeout: 200ms}}";
    let gateway = setup(backend.address, http2).start().await;
    let mut client = gateway.wire().await;
    client.send(GET).await;
    let mut origin = soon("a connection", backend.accept()).await;
    assert_eq!(origin.exactly(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let (mut stream_window, mut connection_window) = (None, None);
    soon("a PING", async {
        loop {
            let head = origin.exactly(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let payload = origin.exactly(length as usize).await;
            match head[3] {
                SETTINGS => {
                    for entry in payload.chunks(6).filter(|entry| entry[..2] == [0, 4]) {
                        stream_window = Some(u32::from_be_bytes(entry[2..].try_into().unwrap()));
                    }
                }
                WINDOW_UPDATE if head[5..] == [0; 4] => {
                    connection_window =
                        Some(65_535 + u32::from_be_bytes(payload.try_into().unwrap()));
                }
                PING => return,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!((stream_window, connection_window), (Some(100 << 10), Some(3 << 20)));
    // The PING is not acknowledged.
    soon("the end of the connection", origin.rest()).await;
    assert!(soon("an answer", client.reply()).await.status() >= 500);
}

#[tokio::test]
async fn a_connection_carries_as_many_streams_as_it_may() {
    for (http2, connections) in [("{maxConcurrentStreams: 1}", 3.0), ("{}", 1.0)] {
        let (shop, at) = (Echo::start().await, free_address());
        let gateway = Arc::new(setup(shop.address, http2).metrics_at(at).start().await);
        let ask = || {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { gateway.get("http://shop.test/?delay=1s").await.status() })
        };
        for asked in [ask(), ask(), ask()] {
            assert_eq!(asked.await.unwrap(), 200, "{http2}");
        }
        let name = "envoy_cluster_upstream_cx_total\
                    {envoy_cluster_name=\"httproute/envoy-gateway-system/shop/rule/0\"}";
        assert_eq!(value(&scrape(at).await, name), connections, "{http2}");
    }
}

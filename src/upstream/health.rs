//! The control thread of the upstream side: resolves names every 30 s and asks endpoints with an active check.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::connect::{Connection, connect};
use super::endpoint::{Endpoint, Registry};
use super::h1::H1;
use crate::clock::Clock;
use crate::config::HealthCheck;
use crate::names::Mono;

/// Names are resolved again this often.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often the thread looks what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Resolves every name of `registry` once; called before the first request and then by [`run`].
pub async fn resolve_all(registry: &Registry) {
    for endpoint in registry.all().into_iter().filter(|e| e.needs_resolving()) {
        let name = (endpoint.address.host.clone(), endpoint.address.port);
        match tokio::net::lookup_host(name).await {
            Ok(found) => endpoint.set_resolved(found.collect()),
            Err(error) => {
                tracing::warn!(endpoint.name = %endpoint.address, error = %error, "an endpoint's name does not resolve; the last known addresses stay in use");
            }
        }
    }
}

/// Runs on a thread and runtime of its own until `stop` says so. `clusters` always holds those of the newest snapshot.
pub async fn run(
    registry: Arc<Registry>,
    mut clusters: watch::Receiver<Vec<Arc<Cluster>>>,
    clock: Clock,
    mut stop: watch::Receiver<bool>,
) {
    let mut resolved_at: Option<Mono> = None;
    let mut asked_at: HashMap<usize, Mono> = HashMap::new();
    loop {
        let now = clock.now();
        if resolved_at.is_none_or(|at| now.since(at) >= RESOLVE_EVERY) {
            resolve_all(&registry).await;
            resolved_at = Some(now);
        }
        let all: Vec<_> = clusters.borrow_and_update().clone();
        for cluster in all {
            let Some(check) = &cluster.health else { continue };
            for endpoint in &cluster.endpoints {
                let due = asked_at.get(&endpoint.id).is_none_or(|at| now.since(*at) >= check.interval);
                if due {
                    asked_at.insert(endpoint.id, now);
                    let (cluster, endpoint, check) = (Arc::clone(&cluster), Arc::clone(endpoint), check.clone());
                    drop(tokio::task::spawn_local(async move { ask(&cluster, &endpoint, &check).await }));
                }
            }
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = clusters.changed() => {
                if changed.is_err() { return; }
                resolved_at = None;
            }
        }
    }
}

async fn ask(cluster: &Cluster, endpoint: &Arc<Endpoint>, check: &HealthCheck) {
    let limit = check.interval.max(Duration::from_millis(100));
    let healthy = tokio::time::timeout(limit, probe(cluster, endpoint, &check.path)).await.unwrap_or(false);
    endpoint.set_healthy(healthy);
}

async fn probe(cluster: &Cluster, endpoint: &Arc<Endpoint>, path: &str) -> bool {
    let Ok(connection) = connect::<Empty<Bytes>>(cluster, endpoint).await else { return false };
    let h2 = matches!(connection, Connection::H2(_));
    let target = if h2 { format!("{}{path}", endpoint.address) } else { path.to_owned() };
    let request = Request::builder().method("GET").uri(target);
    let Ok(request) = request.header(http::header::USER_AGENT, "serin-health").body(Empty::new()) else { return false };
    let status = match connection {
        Connection::H1(io) => {
            let mut connection = H1::new(io);
            connection.begin(request, path, |out| {
                out.put_field(&http::header::HOST, endpoint.address.authority().as_bytes());
            });
            std::future::poll_fn(|cx| connection.poll_head(cx, &mut |_, _| ())).await.ok().map(|head| head.status())
        }
        Connection::H2(mut h2) => h2.sender.send_request(request).await.ok().map(|answer| answer.status()),
    };
    status.is_some_and(|status| status.is_success())
}

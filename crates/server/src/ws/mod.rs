//! The WebSocket side: from an HTTP request to a running connection task.

mod close;
mod compression;
mod connection;
mod handshake;
mod json;
mod outbox;
mod payload;
mod timers;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tine_host::{ClientInfo, ForkHandle};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument as _;

use self::compression::Compression;
use self::connection::ConnectionTask;
use self::handshake::{Handshake, Protocol, SubscribeParameters};
use self::json::JsonSession;
use self::timers::Timers;
use crate::error::RequestError;
use crate::http::Identified;
use crate::limits::{FRAGMENT_BYTES_MAX, READ_BUFFER_BYTES};
use crate::parameters::Parameters;
use crate::server::{ConnectionPermit, Shared};

pub(crate) use self::outbox::Outbox;

/// What a new connection task is made of.
struct Subscription {
    shared: Arc<Shared>,
    fork: ForkHandle,
    client: ClientInfo,
    protocol: Protocol,
    compression: Compression,
    is_light: bool,
    permit: Arc<ConnectionPermit>,
}

/// `GET /v1/database/:name/subscribe`.
pub(crate) async fn subscribe(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Extension<Identified>,
    Extension(permit): Extension<Arc<ConnectionPermit>>,
    mut request: Request,
) -> Result<Response, RequestError> {
    let handshake = Handshake::negotiate(request.method(), request.headers())?;
    let parameters = SubscribeParameters::parse(&Parameters::parse(request.uri().query().unwrap_or(""))?)?;
    if shared.is_stopping() {
        return Err(RequestError::ShuttingDown);
    }
    let fork = shared.host.resolve(&name)?;
    if parameters.confirmed == Some(true) && !fork.is_durable() {
        return Err(tine_host::HostError::NeverConfirmed.into());
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(RequestError::UpgradeRequired)?;
    let caller = &identified.caller;
    let subscription = Subscription {
        client: ClientInfo {
            identity: caller.identity,
            connection_id: parameters.connection_id.unwrap_or_else(|| shared.auth.random_connection_id()),
            token: caller.token.clone(),
            jwt_payload: Some(caller.jwt_payload.clone()),
            // The older protocol does not wait unless asked.
            confirmed: parameters.confirmed.or((handshake.protocol == Protocol::V1Json).then_some(false)),
        },
        shared,
        fork,
        protocol: handshake.protocol,
        compression: parameters.compression.kept_in_order(request.headers(), handshake.offers_all),
        is_light: parameters.light,
        permit,
    };
    let span = tracing::info_span!("client", database = name, identity = %caller.identity);
    tokio::spawn(subscription.run(upgrade).instrument(span));
    Ok(switching_protocols(&handshake))
}

fn switching_protocols(handshake: &Handshake) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept_key = HeaderValue::from_str(&handshake.accept_key).expect("base64 is a valid header value");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(handshake.protocol.name()));
    response
}

impl Subscription {
    /// Waits for hyper to hand over the stream and serves it.
    async fn run(self, upgrade: OnUpgrade) {
        let limits = &self.shared.limits;
        let upgraded = match tokio::time::timeout(limits.head_timeout, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            _ => return tracing::debug!("the client left during the handshake"),
        };
        let parts = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => parts,
            Err(_) => unreachable!("connections are served on TCP streams only"),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // `fill` hands over at most two fragments between flushes: the buffer itself never writes.
            .write_buffer_size(4 * FRAGMENT_BYTES_MAX)
            .max_write_buffer_size(16 * FRAGMENT_BYTES_MAX)
            .max_message_size(Some(limits.client_message_bytes_max))
            .max_frame_size(Some(limits.client_message_bytes_max));
        let (stream, early) = (parts.io.into_inner(), parts.read_buf.to_vec());
        let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await;

        let metrics = self.shared.metrics.clone();
        let outbox = Outbox::new(limits.outgoing_messages_max, limits.outgoing_bytes_max, metrics.clone());
        let outbox = Arc::new(outbox);
        let _registered = self.shared.register_client(outbox.clone());
        let confirmed = self.client.confirmed.unwrap_or(true);
        let durable = confirmed.then(|| self.fork.durability());
        let json = (self.protocol == Protocol::V1Json).then(|| JsonSession::new(self.fork.clone(), self.is_light));
        let connected = self.shared.stalls.watch(|| self.fork.connect(self.client, outbox.clone()));
        let session = match connected {
            Ok(session) => session,
            Err(error) => return tracing::debug!(%error, "the client was not connected"),
        };
        let timers = Timers::new(limits, Instant::now());
        let shared = self.shared.clone();
        let format = (self.protocol, self.compression);
        let task = ConnectionTask::new(socket, format, session, outbox, durable, timers, shared);
        task.speaking(json).run().await;
        drop(self.permit);
    }
}

//! Request bodies. What a handler leaves unread is read and dropped, so that the client gets the response and the
//! connection stays usable (RFC 9112, 9.3).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Body, Frame, Incoming, SizeHint},
    header,
};
use tokio::time::timeout;

/// Maximum number of unread bytes that are read and dropped.
const DROP_MAX: u64 = 1_024 * 1_024;
/// Maximum time for which unread bytes are awaited.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of a request. A body that is dropped goes back to its [`Rest`].
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Option<Incoming>,
    rest: Arc<Mutex<Option<Incoming>>>,
}

/// The part of a request's body that a handler leaves unread.
pub(super) struct Rest {
    left: Arc<Mutex<Option<Incoming>>>,
    /// The client sends the body only after an interim response, so a refused body never comes.
    awaits_continue: bool,
}

/// Separates a request from the rest of its body.
pub(super) fn track(request: Request<Incoming>) -> (Request<RequestBody>, Rest) {
    let left = Arc::new(Mutex::new(None));
    let awaits_continue = request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| RequestBody { inner: Some(body), rest: left.clone() });
    (request, Rest { left, awaits_continue })
}

impl Rest {
    /// Reads the rest of the body. Returns false if the connection can't carry another request, because too much is left
    /// or nothing comes.
    pub(super) async fn read_out(self) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = left.filter(|body| !body.is_end_stream()) else { return true };
        if self.awaits_continue || body.size_hint().lower() > DROP_MAX {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > DROP_MAX {
                    return false;
                }
            }
            true
        };
        timeout(DROP_TIMEOUT, read).await.unwrap_or(false)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.inner {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = self.inner.take();
    }
}

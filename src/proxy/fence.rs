//! The fence behind a kill: every worker says when the heads that it had decided to send before it are written.
//!
//! Over HTTP/1.1 a request looks at the latch a last time and writes its head in one poll. Over HTTP/2 it hands its head to
//! the connection's task, which writes it in its own poll, a little later when the worker is busy. In between, an abort
//! could be answered on another thread, and a canary head would follow the answer (13 of 150 kills did so on a saturated
//! machine). A worker's run queue is first in, first out, so whoever asks it to go round passes behind all such heads.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::worker::Worker;
use crate::names::Arm;

/// Fences on their way to a worker.
const WAITING: usize = 64;
/// Rounds of the run queue: request to connection, and once more inside HTTP/2.
const ROUNDS: u32 = 3;
/// A worker that stands still for longer is not waited for; the latch is in force all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a worker says at a fence: where its own view of the cell would send the unit of a drill's phantom.
pub type Said = Option<Arm>;

/// A worker's end.
pub type Asked = mpsc::Receiver<oneshot::Sender<Said>>;

/// The way to all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fences(Arc<[mpsc::Sender<oneshot::Sender<Said>>]>);

/// Fences for so many workers, and each worker's end.
#[must_use]
pub fn fences(workers: usize) -> (Fences, Vec<Asked>) {
    let (senders, asked): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(WAITING)).unzip();
    (Fences(senders.into()), asked)
}

impl Fences {
    /// Waits until no worker has a head to write that it decided on before this call; what each of them said, or `None`
    /// where one did not answer in time. Workers that have ended have no head and say nothing.
    pub async fn pass(self) -> Option<Vec<Said>> {
        let pass = async {
            let mut passed = Vec::with_capacity(self.0.len());
            for worker in self.0.iter() {
                let (done, said) = oneshot::channel();
                if worker.send(done).await.is_ok() {
                    passed.push(said);
                }
            }
            let mut heard = Vec::with_capacity(passed.len());
            for said in passed {
                heard.extend(said.await.ok());
            }
            heard
        };
        let heard = tokio::time::timeout(PATIENCE, pass).await.ok();
        if heard.is_none() {
            tracing::warn!(
                "a worker has not moved for {PATIENCE:?}: a head that it decided on before may still follow"
            );
        }
        heard
    }
}

/// Goes round the run queue of this worker and says what its view of the cell shows then.
pub(super) async fn go_round(done: oneshot::Sender<Said>, worker: Rc<Worker>) {
    let mut rounds = 0;
    std::future::poll_fn(|cx| {
        if rounds == ROUNDS {
            return Poll::Ready(());
        }
        rounds += 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if done.send(worker.view().snapshot().rehearsed_arm()).is_err() {
        tracing::trace!("nobody waits for the fence any more");
    }
}

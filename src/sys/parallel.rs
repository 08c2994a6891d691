//! The same work for many: on every processor that this process may use, or at once where it waits for others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};

/// More threads than this only wait for the same disk.
const MAX_THREADS: usize = 8;

/// Items that a thread takes at a time.
const BATCH: usize = 16;

/// Called with the number of items done and the number of all.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What `work` gives for each item, in the items' order.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync, progress: Progress<'_>) -> Vec<R> {
    let processors = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    by_threads(items, (processors, BATCH), work, progress)
}

/// The same for work that waits more than it computes: for so many items at once.
pub fn at_once<T: Sync, R: Send>(items: &[T], number: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    by_threads(items, (number, 1), work, &|_, _| ())
}

/// By at most so many threads, each of which takes so many items at a time.
fn by_threads<T: Sync, R: Send>(
    items: &[T],
    (threads, batch_size): (usize, usize),
    work: impl Fn(&T) -> R + Sync,
    progress: Progress<'_>,
) -> Vec<R> {
    let threads = threads.min(items.len().div_ceil(batch_size));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take_turns = || {
        let mut results = Vec::new();
        loop {
            let start = next.fetch_add(batch_size, Ordering::Relaxed);
            let Some(rest) = items.get(start..).filter(|rest| !rest.is_empty()) else { return results };
            let batch = rest.get(..batch_size).unwrap_or(rest);
            results.push((start, batch.iter().map(&work).collect::<Vec<R>>()));
            progress(done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len(), items.len());
        }
    };
    if threads <= 1 {
        return take_turns().into_iter().flat_map(|(_, batch)| batch).collect();
    }
    let mut batches: Vec<(usize, Vec<R>)> = scope(|scope| {
        // A thread that can't be had leaves its work to the others.
        let start = |_| Builder::new().spawn_scoped(scope, take_turns).ok();
        let workers: Vec<_> = (1..threads).map_while(start).collect();
        let mut batches = take_turns();
        for worker in workers {
            match worker.join() {
                Ok(results) => batches.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        batches
    });
    batches.sort_by_key(|(start, _)| *start);
    batches.into_iter().flat_map(|(_, batch)| batch).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn order_is_kept() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(
            super::map(&items, |item| item * 2, &|_, _| ()),
            items.iter().map(|i| i * 2).collect::<Vec<_>>()
        );
        assert!(super::map(&Vec::<u8>::new(), |_| (), &|_, _| ()).is_empty());
        assert_eq!(super::at_once(&[3, 1, 2], 2, |item| item + 1), [4, 2, 3]);
    }
}

//! The one module with unsafe code: libvirt's event loop and callbacks, for which the `virt` crate has no safe form.
//!
//! libvirt delivers events from whichever thread runs its event loop; here that is one thread that lives as long as the process, because a
//! registered event loop implementation can never be taken back. A callback gets a pointer to a boxed channel, which libvirt gives to
//! `drop_sender` when it forgets the callback, so the box lives exactly as long as a callback can come. Callbacks only send on that channel.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::{Arc, OnceLock},
};

use cloud_domain::InstanceId;
use tokio::sync::{Notify, broadcast};
use virt::{connect::Connect, error::Error, sys};

use crate::core::HypervisorEvent;

static LOOP: OnceLock<Result<(), Error>> = OnceLock::new();

/// Starts the event loop, once per process. Must come before the first connection.
///
/// # Errors
/// libvirt or the system refuses.
pub fn start_loop() -> Result<(), Error> {
    LOOP.get_or_init(|| {
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl()?;
        // Runs as long as the process; every turn blocks until libvirt has something to do.
        let thread = std::thread::Builder::new().name("libvirt-events".into()).spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::error!(%error, "libvirt's event loop failed");
                    #[expect(clippy::disallowed_methods, reason = "this thread is libvirt's alone, no async worker")]
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        });
        thread.map(drop).map_err(|_| Error::last_error())
    })
    .clone()
}

/// Subscribes to lifecycle, reboot, metadata and device removal events of every domain, and to the connection's end. Undone by [`unsubscribe`].
///
/// # Errors
/// libvirt refuses.
pub fn subscribe(
    connect: &Connect,
    events: &broadcast::Sender<HypervisorEvent>,
    closed: &Arc<Notify>,
) -> Result<Subscription, Error> {
    type Generic = sys::virConnectDomainEventGenericCallback;
    // SAFETY: libvirt declares one callback type for all kinds of event and casts it back to the type that belongs to the event id, which is
    // the type of `lifecycle` here (virConnectDomainEventCallback).
    let lifecycle: Generic =
        unsafe { std::mem::transmute::<sys::virConnectDomainEventCallback, Generic>(Some(lifecycle)) };
    // SAFETY: as above (virConnectDomainEventMetadataChangeCallback).
    let tagged: Generic =
        unsafe { std::mem::transmute::<sys::virConnectDomainEventMetadataChangeCallback, Generic>(Some(tagged)) };
    // SAFETY: as above (virConnectDomainEventDeviceRemovedCallback).
    let released: Generic =
        unsafe { std::mem::transmute::<sys::virConnectDomainEventDeviceRemovedCallback, Generic>(Some(released)) };
    let mut subscription = Subscription { ids: Vec::new() };
    for (event, callback) in [
        (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
        (sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(rebooted as unsafe extern "C" fn(_, _, _))),
        (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, tagged),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, released),
    ] {
        let sender = Box::into_raw(Box::new(events.clone()));
        // SAFETY: the connection is alive; no domain means all of them; `sender` is a box that `drop_sender` frees when libvirt forgets the
        // callback, and that is freed here where libvirt never took it.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                std::ptr::null_mut(),
                c_int::try_from(event).unwrap_or(c_int::MAX),
                callback,
                sender.cast(),
                Some(drop_sender),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt refused, so the box is still ours alone.
            drop(unsafe { Box::from_raw(sender) });
            unsubscribe(connect, &subscription);
            return Err(error);
        }
        subscription.ids.push(id);
    }
    let notify = Arc::into_raw(Arc::clone(closed)).cast_mut();
    // SAFETY: as above, with an `Arc` instead of a box.
    let result = unsafe {
        sys::virConnectRegisterCloseCallback(
            connect.as_ptr(),
            Some(connection_closed),
            notify.cast(),
            Some(drop_notify),
        )
    };
    if result < 0 {
        let error = Error::last_error();
        // SAFETY: libvirt refused, so the reference is still ours.
        drop(unsafe { Arc::from_raw(notify.cast_const()) });
        unsubscribe(connect, &subscription);
        return Err(error);
    }
    Ok(subscription)
}

/// What [`subscribe`] registered.
#[derive(Debug)]
pub struct Subscription {
    ids: Vec<c_int>,
}

/// Ends a subscription, so that the connection can be freed. On a connection that is lost libvirt may refuse; then the callbacks go with it.
pub fn unsubscribe(connect: &Connect, subscription: &Subscription) {
    for id in &subscription.ids {
        // SAFETY: the connection is alive and the id is one that it gave.
        if unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), *id) } < 0 {
            tracing::debug!(error = %Error::last_error(), "an event callback was not deregistered");
        }
    }
    // SAFETY: the connection is alive; libvirt checks that the callback is the registered one.
    if unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(connection_closed)) } < 0 {
        tracing::debug!(error = %Error::last_error(), "the close callback was not deregistered");
    }
}

/// Takes ownership of a file descriptor that libvirt made for its caller.
pub fn own_fd(fd: u32) -> Option<OwnedFd> {
    let fd = RawFd::try_from(fd).ok()?;
    // SAFETY: `virDomainOpenGraphicsFD` hands its result over to the caller, who must close it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

unsafe extern "C" fn lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    sender: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes a live domain, and the box that was registered.
    unsafe { send(domain, sender, HypervisorEvent::Changed) };
    0
}

unsafe extern "C" fn tagged(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    _namespace: *const c_char,
    sender: *mut c_void,
) {
    // SAFETY: as above.
    unsafe { send(domain, sender, HypervisorEvent::Changed) };
}

unsafe extern "C" fn released(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    sender: *mut c_void,
) {
    // SAFETY: as above.
    unsafe { send(domain, sender, HypervisorEvent::Changed) };
}

unsafe extern "C" fn rebooted(_connect: sys::virConnectPtr, domain: sys::virDomainPtr, sender: *mut c_void) {
    // SAFETY: as above.
    unsafe { send(domain, sender, HypervisorEvent::Rebooted) };
}

/// Sends the event if the domain's name is an instance's. Sending does not block, and nobody listening is fine.
unsafe fn send(domain: sys::virDomainPtr, sender: *mut c_void, event: fn(InstanceId) -> HypervisorEvent) {
    // SAFETY: `sender` is the box that was registered with this callback and is not freed while a callback runs; the name belongs to the
    // domain, which outlives this call.
    let (name, sender) =
        unsafe { (sys::virDomainGetName(domain), &*sender.cast_const().cast::<broadcast::Sender<HypervisorEvent>>()) };
    if name.is_null() {
        return;
    }
    // SAFETY: not null, so a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    if let Some(id) = name.strip_prefix("cloud-").and_then(|id| id.parse().ok()) {
        let _ = sender.send(event(id));
    }
}

unsafe extern "C" fn connection_closed(_connect: sys::virConnectPtr, _reason: c_int, notify: *mut c_void) {
    // SAFETY: the `Arc` that was registered, which libvirt still holds.
    unsafe { &*notify.cast_const().cast::<Notify>() }.notify_one();
}

unsafe extern "C" fn drop_sender(sender: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `subscribe`; libvirt calls this once, when it forgets the callback.
    drop(unsafe { Box::from_raw(sender.cast::<broadcast::Sender<HypervisorEvent>>()) });
}

unsafe extern "C" fn drop_notify(notify: *mut c_void) {
    // SAFETY: made by `Arc::into_raw` in `subscribe`; libvirt calls this once.
    drop(unsafe { Arc::from_raw(notify.cast_const().cast::<Notify>()) });
}

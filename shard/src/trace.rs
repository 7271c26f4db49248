//! Spans for the `tracing` feature. Without it they leave nothing behind.

/// Opens a span that lasts until the end of the block.
#[macro_export]
#[doc(hidden)]
macro_rules! span {
    ($name:literal $(, $field:ident = $value:expr)*) => {
        #[cfg(feature = "tracing")]
        let _span = ::tracing::debug_span!(target: "caskade", $name $(, $field = $value)*).entered();
    };
}

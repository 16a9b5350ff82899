//! What was written, and where: files in, objects and diagnostics out.

"""gradwatch inside other libraries' training loops: one module a library, each imported only by who asks for it."""

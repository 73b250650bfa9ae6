//! BERTopic's models: directories in all three serializations, read and written without Python.

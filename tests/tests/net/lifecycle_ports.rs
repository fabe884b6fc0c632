//! Does the controller follow what becomes of its ports' interfaces?

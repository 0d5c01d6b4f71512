//! What one node delivers: order, healing, audiences.

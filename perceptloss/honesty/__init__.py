"""What keeps a training honest: judges apart from critics, alarms, content statistics, and the doctor of critics."""

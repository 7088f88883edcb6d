package pgserver

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// identity is the user that postgres runs as.
type identity struct {
	name     string
	uid, gid int
	become   *syscall.Credential // set when the caller is root and has to become this user
}

func (id identity) drop() bool { return id.become != nil }

func chooseIdentity(runAs string) (identity, error) {
	if os.Geteuid() != 0 {
		if runAs != "" {
			return identity{}, &Error{ErrOptions, "only root can run the server as another user", "leave RunAs empty"}
		}
		uid := os.Geteuid()
		return identity{name: "uid " + strconv.Itoa(uid), uid: uid, gid: os.Getegid()}, nil
	}
	names := []string{"postgres", "nobody"}
	if runAs != "" {
		names = []string{runAs}
	}
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			return newIdentity(u)
		}
	}
	return identity{}, &Error{ErrOptions, fmt.Sprintf("PostgreSQL refuses to run as root and there is no user %v", names),
		"run `useradd --system postgres`"}
}

func newIdentity(u *user.User) (identity, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("pgserver: uid of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("pgserver: gid of %s: %w", u.Username, err)
	}
	if uid == 0 {
		return identity{}, &Error{ErrOptions, "PostgreSQL refuses to run as root", "set RunAs to another user"}
	}
	become := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return identity{name: u.Username, uid: int(become.Uid), gid: int(become.Gid), become: become}, nil
}

// callerMode is the mode of a folder that the caller owns and the server's
// user only has to pass.
func (id identity) callerMode() os.FileMode {
	if id.drop() {
		return 0o711
	}
	return 0o700
}

// own gives a file or folder to the server's user.
func (id identity) own(path string) error {
	if !id.drop() {
		return nil
	}
	return os.Lchown(path, id.uid, id.gid)
}

// mkdir makes a private folder for the server's user.
func (id identity) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return id.own(path)
}

// writeFile makes or replaces a private file of the server's user.
func (id identity) writeFile(path string, content []byte) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return id.own(path)
}

// canPass reports whether the permission bits let the user through a folder.
func (id identity) canPass(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch {
	case int(st.Uid) == id.uid:
		return info.Mode()&0o100 != 0
	case int(st.Gid) == id.gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}

// checkPassable makes sure that the server's user can reach dir, so that a
// closed parent gives one clear line and not a riddle from postgres.
func (id identity) checkPassable(dir string) error {
	if !id.drop() {
		return nil
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	for folder := real; ; folder = filepath.Dir(folder) {
		info, err := os.Stat(folder)
		if err != nil {
			return fmt.Errorf("pgserver: %w", err)
		}
		if !id.canPass(info) {
			return &Error{ErrFolder, fmt.Sprintf("user %s must pass %s to reach %s, and its mode is %04o", id.name, folder, dir, info.Mode().Perm()),
				fmt.Sprintf("run `chmod o+x %s` or choose another folder", folder)}
		}
		if folder == filepath.Dir(folder) {
			return nil
		}
	}
}

func ownerOf(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return os.Geteuid()
}
